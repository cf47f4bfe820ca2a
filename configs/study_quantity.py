"""Research question 2: does the quantity of the knowledge matter? Shares of the training sessions by strategy, domains
and formats together.

    python launch.py --config=configs/study_quantity.py --config.study.dry_run=True
    python launch.py --config=configs/study_quantity.py --config.data.source=bundlerec --config.data.root=DIR \\
        --config.data.domains="('electronic','clothing')"

Samples of one strategy are nested. Sessions that are not in the sample yield neither knowledge nor training examples:
the teacher reflects on 32 sessions, of which a sample holds its share. With
--config.quantity.applies_to="('knowledge',)" the others are still trained on. Several formats with thoughts among them,
which are written, are compared with a student that writes, told rules. With two domains, a cell for each alone shows
what learning from both is worth, and one what it is worth that each prompt has the knowledge of both. `:small` leaves
out two strategies, the share of 75 %, several formats, and the second epoch; `:smoke` runs in two minutes.
"""

from configs.base import cell, small, study
from configs.sft_text import WRITES

STRATEGIES = ("random", "length", "diversity", "difficulty")
RATIOS = (0.1, 0.25, 0.5, 0.75)
WHOLE, WRITTEN = "all sessions", "rules, fine-tuned to write"
THINKS = WRITES | {"eval__max_new_tokens": 160}
CELLS = (
    cell(WHOLE),
    *(
        cell(f"{ratio:.0%}, {strategy}", WHOLE, quantity__ratio=ratio, quantity__strategy=strategy)
        for strategy in STRATEGIES
        for ratio in RATIOS
    ),
    cell("no knowledge", WHOLE, knowledge__formats=()),
    cell("patterns and rules", WHOLE, knowledge__formats=("patterns", "rules")),
    cell(WRITTEN, **WRITES),
    cell("rules and thoughts, fine-tuned to write", WRITTEN, knowledge__formats=("rules", "thoughts"), **THINKS),
    cell("patterns and thoughts, fine-tuned to write", WRITTEN, knowledge__formats=("patterns", "thoughts"), **THINKS),
    cell("all formats, fine-tuned to write", WRITTEN, knowledge__formats=("patterns", "rules", "thoughts"), **THINKS),
)
LEFT_OUT = ("75%", "length", "diversity", "patterns", "to write")
SMALL = tuple(one for one in CELLS if not any(word in one[0] for word in LEFT_OUT))
SMOKE = (WHOLE, "10%, difficulty", WRITTEN, "all formats, fine-tuned to write")


def get_config(arg: str = ""):
    about = "Does the quantity of the knowledge matter: how many sessions, how they are chosen, how many formats?"
    config = small(study("study_quantity", about, CELLS), arg, SMALL)
    config.study.each_domain = True
    config.knowledge.reflections = 32
    if arg == "smoke":
        named = {one[0]: one for one in CELLS}
        config.study.cells = tuple(named[name] for name in SMOKE)
        config.study.seeds = (0,)
        config.train.max_length = 4096
        config.train.max_steps = 2
    return config
