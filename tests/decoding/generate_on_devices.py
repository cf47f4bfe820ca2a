"""Free answers over all devices, as JSON token ids on stdout. Argument: the model's folder."""

import json
import sys
from pathlib import Path

import jax
from decoding_helpers import PROMPTS, STEPS, tiny_student

from kdjax.decoding import Constraint, Generator

assert jax.local_device_count() == 4
student = tiny_student(Path(sys.argv[1]))
generator = Generator(student, max_new_tokens=STEPS, rows_per_device=1, buckets=1)
completions = generator(student.adapter, PROMPTS, [5] * len(PROMPTS), Constraint("none"))
print(json.dumps([completion.token_ids for completion in completions]))
