"""Research question 1: does the format of the knowledge matter? None, patterns, rules, thoughts, in prompts alone and with fine-tuning.

    python launch.py --config=configs/study_format.py --config.study.dry_run=True
    python launch.py --config=configs/study_format.py --config.data.source=bundlerec --config.data.root=DIR \\
        --config.data.domains="('electronic','clothing')"

The first prints the plan: cells, steps, teacher calls, time, disk. Fine-tuned students judge pairs (docs/results/recipe.md);
thoughts, which are written, are measured against a student that writes without them. A row "from annotations" is taught
by no model: the floor that a teacher must beat. Each cell is compared with the one without knowledge. `:small` leaves
out the cells that are fine-tuned to write, a teacher's thoughts (a call per training session) and the second epoch;
`:smoke` runs in two minutes.
"""

from configs.base import cell, small, study
from configs.sft_text import WRITES

ICL = WRITES | {"train__max_steps": 0, "prompting__demonstrations": 1}
RULES, PATTERNS, THOUGHTS = ({"knowledge__formats": (name,)} for name in ("rules", "patterns", "thoughts"))
SHOWN = {"knowledge__thoughts_in": "demonstrations"}
NO_MODEL = {"teacher__kind": "annotations"}
NOTHING = {"knowledge__formats": ()}

CELLS = (
    cell("none, fine-tuned", **NOTHING),
    cell("patterns, fine-tuned", "none, fine-tuned", **PATTERNS),
    cell("rules, fine-tuned", "none, fine-tuned", **RULES),
    cell("rules from annotations, fine-tuned", "none, fine-tuned", **RULES, **NO_MODEL),
    cell("none, fine-tuned to write", **NOTHING, **WRITES),
    cell("thoughts, fine-tuned to write", "none, fine-tuned to write", **THOUGHTS, **WRITES, eval__max_new_tokens=160),
    cell(
        "thoughts from annotations, fine-tuned to write",
        "none, fine-tuned to write",
        **THOUGHTS,
        **WRITES,
        **NO_MODEL,
        eval__max_new_tokens=160,
    ),
    cell("none, in context", **NOTHING, **ICL),
    cell("patterns, in context", "none, in context", **PATTERNS, **ICL),
    cell("rules, in context", "none, in context", **RULES, **ICL),
    cell("rules from annotations, in context", "none, in context", **RULES, **ICL, **NO_MODEL),
    cell("thoughts, in context", "none, in context", **THOUGHTS, **ICL, **SHOWN),
    cell("thoughts from annotations, in context", "none, in context", **THOUGHTS, **ICL, **SHOWN, **NO_MODEL),
)
SMALL = tuple(one for one in CELLS if "to write" not in one[0] and one[0] != "thoughts, in context")


def get_config(arg: str = ""):
    about = "Does the format of the knowledge matter: patterns, rules or thoughts, in the prompt or learned?"
    config = small(study("study_format", about, CELLS), arg, SMALL)
    if arg == "smoke":
        config.study.cells = (CELLS[0], CELLS[1], CELLS[7], CELLS[12])
        config.study.seeds = (0, 1)
        config.train.max_steps = 2
        config.train.max_length = 4096
    return config
