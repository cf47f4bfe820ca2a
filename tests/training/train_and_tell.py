"""The training of the loop's tests, telling its steps. Arguments: the model's folder, the folder of checkpoints."""

import sys
from pathlib import Path

from training_helpers import FEW, SETTINGS, random_examples, tiny_student

from kdjax.training import Training

Training(
    tiny_student(Path(sys.argv[1]), FEW),
    [random_examples("a", 12, prefix=13)] * 4,
    SETTINGS,
    sys.argv[2],
    on_event=lambda row: print(row["step"], flush=True),
).run()
