"""The student: a Flax NNX decoder with our own LoRA layer, weights in, adapters in and out."""

from kdjax.student.families import decoder_config
from kdjax.student.lora_config import LoraConfig
from kdjax.student.quantization import METHODS as QUANTIZATIONS
from kdjax.student.student import DTYPES, Student, load_student

__all__ = ["DTYPES", "QUANTIZATIONS", "LoraConfig", "Student", "decoder_config", "load_student"]
