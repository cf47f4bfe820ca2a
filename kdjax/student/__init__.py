"""The student: a Flax NNX decoder with our own LoRA layer, weights in, adapters in and out."""

from kdjax.student.decoder import REMAT
from kdjax.student.lora_config import LoraConfig
from kdjax.student.quantization import METHODS as QUANTIZATIONS
from kdjax.student.student import DTYPES, Student, check_student, load_student

__all__ = ["DTYPES", "QUANTIZATIONS", "REMAT", "LoraConfig", "Student", "check_student", "load_student"]
