"""Generation against transformers: greedy answers to all test prompts, compared token by token."""

from collections.abc import Sequence

import numpy as np

from kdjax.benchmark.bench import Bench, more_than_median, seconds
from kdjax.benchmark.channel import Side
from kdjax.errors import InputError

MODES = ("none", "json", "items")
TIE = 1e-3  # two logits nearer than this may change places by rounding


def generation(bench: Bench, threads: int, eos_ids: tuple[int, ...]) -> dict:
    """Greedy answers to the test prompts with the adapter that the real job left; all sessions, a share of them per round."""
    config, count = bench.config.eval, len(bench.work.test)
    parts = [list(range(r, count, bench.rounds)) for r in range(bench.rounds)]
    adapter = {"adapter": str(bench.folder / "adapter"), "max_new_tokens": config.max_new_tokens}
    ours = {"lora": None, "batch_size": config.batch_size, "buckets": config.buckets}
    theirs = adapter | {"threads": threads, "eos_ids": eos_ids}
    tries = _by_batch_size(bench, theirs, parts[0])
    best = min(tries, key=tries.get)
    with (
        bench.ours("generate", **adapter, **ours) as jax_side,
        bench.theirs("transformers", "generate", **theirs) as torch_side,
    ):
        turns = {f"kdjax, {mode}": lambda r, mode=mode: jax_side.ask(members=parts[r], mode=mode) for mode in MODES}
        cold = {name: sum(turn(r)["seconds"] for r in range(bench.rounds)) for name, turn in turns.items()}
        turns["transformers"] = lambda r: torch_side.ask(members=parts[r], batch_size=best)
        first = turns["transformers"](0)
        replies = bench.alternate("generation", turns)
        compared = same_answers(jax_side, parts, replies["kdjax, none"], replies["transformers"])
    for rows in replies.values():
        for row, part in zip(rows, parts, strict=True):
            row["examples"] = len(part)
            row["new_tokens"] = sum(map(len, row.pop("answers")))
    extra = {name: max(0.0, whole - float(np.sum(seconds(replies[name])))) for name, whole in cold.items()}
    extra["transformers"] = more_than_median(first, replies["transformers"])
    return {"replies": replies, "batch_sizes": tries, "answers": compared, "first_turn": extra}


def _by_batch_size(bench: Bench, settings: dict, members: list[int]) -> dict[int, float]:
    """Batch size → seconds of transformers, after a warm-up; in a process that ends here, since its memory is not that of the best."""
    sizes = bench.config.benchmark.generate_batch_sizes
    with bench.theirs("transformers", "generate", **settings) as side:
        side.ask(members=members, batch_size=sizes[0])
        return {size: side.ask(members=members, batch_size=size)["seconds"] for size in sizes}


def same_answers(
    jax_side: Side, parts: Sequence[Sequence[int]], ours: list[dict], theirs: list[dict]
) -> dict[str, int]:
    """How many answers are equal; where one differs, the two tokens have to be a tie within rounding.

    Raises:
        InputError: the tokens that differ are not our two likeliest there, or these are further apart than TIE.
    """
    equal = ties = 0
    for members, a, b in zip(parts, ours, theirs, strict=True):
        for member, x, y in zip(members, a["answers"], b["answers"], strict=True):
            if x == y:
                equal += 1
                continue
            same = next(i for i in range(max(len(x), len(y))) if x[i : i + 1] != y[i : i + 1])
            top = jax_side.ask(gap=[member, x[:same]])
            high, low = top["logits"]
            if {*x[same : same + 1], *y[same : same + 1]} != set(top["ids"]) or high - low > TIE:
                raise InputError(
                    f"benchmark: test prompt {member}: kdjax says {x}, transformers {y}, and token {same} is no tie: "
                    f"our two likeliest are {top['ids']} with logits {top['logits']}"
                )
            ties += 1
    return {"equal": equal, "ties": ties}
