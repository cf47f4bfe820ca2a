"""Research question 3: does the way of using the knowledge matter? In context, by fine-tuning, or both.

    python launch.py --config=configs/study_use.py --config.study.dry_run=True
    python launch.py --config=configs/study_use.py --config.data.source=bundlerec --config.data.root=DIR \\
        --config.data.domains="('electronic','clothing')"

Rules stand in every prompt. In context: the untrained student writes, after 0, 1, 3 or 5 demonstrations, the nearest training
sessions. AICL is the predecessor, with the teacher as its model: at most eleven teacher calls per test session. Fine-tuned: the student
judges pairs (docs/results/recipe.md), without and with a demonstration, and is compared with one that judges them untrained; or it writes, as
in context. `:small` leaves out AICL, five demonstrations, the fine-tuned student that writes and the second epoch; `:smoke` runs in
two minutes.
"""

from configs.base import cell, small, study
from configs.sft_text import WRITES

ICL = WRITES | {"train__max_steps": 0}
CELLS = (
    cell("AICL, by the teacher", "zero-shot", job="aicl", knowledge__max_new_tokens=200),
    cell("zero-shot", **ICL),
    *(cell(f"in context, {k} shown", "zero-shot", **ICL, prompting__demonstrations=k) for k in (1, 3, 5)),
    cell("fine-tuned to write", "zero-shot", **WRITES),
    cell("fine-tuned to write, 1 shown", "zero-shot", **WRITES, prompting__demonstrations=1),
    cell("untrained, judging", train__max_steps=0),
    cell("fine-tuned", "untrained, judging"),
    cell("fine-tuned, 1 shown", "fine-tuned", prompting__demonstrations=1),
)
SMALL = tuple(one for one in CELLS if not one[0].startswith(("AICL", "in context, 5", "fine-tuned to write")))


def get_config(arg: str = ""):
    about = "Does the way of using the knowledge matter: in context, by fine-tuning, or both?"
    config = small(study("study_use", about, CELLS), arg, SMALL)
    if arg == "smoke":
        tiny = {"teacher__kind": "hf", "teacher__source": "tiny-random", "knowledge__max_new_tokens": 8}
        aicl = cell(CELLS[0][0], "zero-shot", job="aicl", **tiny)
        config.study.cells = (aicl, *CELLS[1:3], cell("fine-tuned"), CELLS[-1])
        config.study.seeds = (0,)
        config.train.max_steps = 2
        config.train.max_length = 4096
    return config
