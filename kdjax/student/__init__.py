"""The student: a Flax NNX decoder with our own LoRA layer, weights in, adapters in and out."""

from kdjax.student.lora import LoraConfig
from kdjax.student.student import Student, load_student

__all__ = ["LoraConfig", "Student", "load_student"]
