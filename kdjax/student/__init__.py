"""The student: a Flax NNX decoder with our own LoRA layer, weights in, adapters in and out; and the pair head on its states."""

from kdjax.student.decoder import REMAT, Decoder
from kdjax.student.exports import EXPORTS, convert_adapter
from kdjax.student.families import DecoderConfig
from kdjax.student.lora_config import LoraConfig
from kdjax.student.pair_head import (
    PAIR_HEAD,
    PairHead,
    fit_pair_head,
    load_pair_head,
    pair_logits,
    save_pair_head,
)
from kdjax.student.quantization import METHODS as QUANTIZATIONS
from kdjax.student.student import DTYPES, Student, check_student, load_student

__all__ = [
    "DTYPES",
    "EXPORTS",
    "PAIR_HEAD",
    "QUANTIZATIONS",
    "REMAT",
    "Decoder",
    "DecoderConfig",
    "LoraConfig",
    "PairHead",
    "Student",
    "check_student",
    "convert_adapter",
    "fit_pair_head",
    "load_pair_head",
    "load_student",
    "pair_logits",
    "save_pair_head",
]
