"""Generation against transformers: greedy answers to all test prompts, compared token by token."""

from collections.abc import Sequence
from itertools import chain

from kdjax.benchmark.bench import Bench, more_than_median, the_same
from kdjax.benchmark.channel import Side
from kdjax.errors import InputError

MODES = ("none", "json", "items")
# Logits nearer than this may change places by rounding. In bfloat16 those of the sides (SmolLM2-135M, up to 34, where two
# neighbours are 1/4 apart) are off each other by 0.1, at most 0.45 among the five likeliest of 32 examples' targets, on a CPU.
TIE = {"float32": 1e-3, "bfloat16": 0.5}


def generation(bench: Bench, threads: int, eos_ids: tuple[int, ...]) -> dict:
    """Greedy answers to the test prompts with the adapter that the real job left, all sessions in each round."""
    config, count = bench.config.eval, len(bench.work.test)
    everyone = list(range(count))
    adapter = {"adapter": str(bench.folder / "adapter"), "max_new_tokens": config.max_new_tokens}
    ours = {"lora": None, "batch_size": config.batch_size, "buckets": config.buckets}
    theirs = adapter | {"threads": threads, "eos_ids": eos_ids}
    tries = _by_batch_size(bench, theirs, everyone[::3])
    best = min(tries, key=tries.__getitem__)
    with (
        bench.ours("generate", **adapter, **ours) as jax_side,
        bench.theirs("transformers", "generate", **theirs) as torch_side,
    ):
        turns = {f"kdjax, {mode}": the_same(jax_side, members=everyone, mode=mode) for mode in MODES}
        turns["kdjax, items, one by one"] = the_same(jax_side, members=everyone, mode="items", one_by_one=True)
        turns["transformers"] = the_same(torch_side, members=everyone, batch_size=best)
        first = {name: turn(0) for name, turn in turns.items()}
        replies = bench.alternate("generation", turns)
        none, plain = (replies[name][0]["answers"] for name in ("kdjax, none", "transformers"))
        compared = same_answers(jax_side, none, plain, bench.config.student.dtype)
    for row in chain.from_iterable(replies.values()):
        row["examples"] = count
        row["new_tokens"] = sum(map(len, row.pop("answers")))
    extra = {name: more_than_median(first[name], rows) for name, rows in replies.items()}
    return {
        "replies": replies,
        "batch_sizes": tries,
        "answers": compared,
        "first_turn": extra,
        "threads": threads,
    }


def _by_batch_size(bench: Bench, settings: dict, members: list[int]) -> dict[int, float]:
    """Batch size → seconds of transformers, after a warm-up; in a process that ends here, since its memory is not that of the best."""
    sizes = bench.config.benchmark.generate_batch_sizes
    with bench.theirs("transformers", "generate", **settings) as side:
        side.ask(members=members, batch_size=sizes[0])
        return {size: side.ask(members=members, batch_size=size)["seconds"] for size in sizes}


def same_answers(jax_side: Side, ours: Sequence[list[int]], theirs: Sequence[list[int]], dtype: str) -> dict[str, int]:
    """How many answers are equal; where one differs, the two tokens have to be a tie within the rounding of `dtype`.

    Raises:
        InputError: by our logits one of the tokens that differ is not within TIE of the likeliest there, or only one side goes on.
    """
    equal = ties = 0
    for member, (x, y) in enumerate(zip(ours, theirs, strict=True)):
        if x == y:
            equal += 1
            continue
        same = next(i for i in range(max(len(x), len(y))) if x[i : i + 1] != y[i : i + 1])
        tokens = [*x[same : same + 1], *y[same : same + 1]]
        gaps = jax_side.ask(gap=[member, x[:same], tokens])["gaps"]
        if len(tokens) < 2 or not all(gap <= TIE[dtype] for gap in gaps):  # one that is nan is none
            raise InputError(
                f"benchmark: test prompt {member}: kdjax says {x}, transformers {y}, and token {same} is no tie: "
                f"by our logits {tokens} are {gaps} below the likeliest"
            )
        ties += 1
    return {"equal": equal, "ties": ties}
