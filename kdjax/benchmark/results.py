"""What the measurements say: medians, ratios with their spread, one Markdown text and one plot."""

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OURS = "kdjax"
TITLES = {"step": "The same step", "job": "The real job", "generation": "Generation"}
FORMULA = "MFU = 4 · N · tokens computed ÷ (seconds · JAX's rate of a plain matrix product)"
MANY = 20  # rounds from which on there is a 95th percentile


def ratios(replies: dict[str, list[dict]], side: str, ours: str) -> np.ndarray:
    """Real tokens per second of `ours` over those of `side`, one ratio per round: packs hold other examples than our steps."""
    rate = {name: np.array([row["real_tokens"] / row["seconds"] for row in replies[name]]) for name in (ours, side)}
    return rate[ours] / rate[side]


def markdown(found: dict) -> str:
    """Everything that was measured, as one table per part with the conditions above it."""
    machine = found["machine"]
    products = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in machine["matmul_rates"].items())
    work = (
        f"{machine['model']}, N = {machine['linear_parameters'] / 1e6:.1f} million parameters in linear layers; "
        f"{machine['examples']} {'synthetic ' if machine['synthetic'] else ''}training examples of {machine['mean_tokens']:.0f} "
        f"tokens, of which {machine['shared_tokens']} are shared and {machine['mean_targets']:.0f} are targets. "
        f"Plain matrix product: {products} Gflop/s. {FORMULA}. kdjax is faster by: real tokens per "
        f"second of kdjax ÷ those of the other side, the median of the rounds and [smallest, largest]; real tokens are "
        f"counted without padding, and each example's in full. Peak: the largest {_memory(machine)}."
    )
    lines = [
        f"**{machine['cpu']}, {machine['cores']} cores; {', '.join(machine['devices'])}; {machine['dtype']}**",
        "",
        ", ".join(f"{name} {value}" for name, value in machine["versions"].items()),
        "",
        work,
    ]
    for part, title in TITLES.items():
        if part in found:
            lines += [
                "",
                f"**{title}**, {_conditions(part, found)}",
                "",
                *_table(found[part], machine),
            ]
    if "startup" in found:
        lines += ["", "**Start-up**, from the command to the first training step:", ""]
        lines += [f"* {name} compile cache: {seconds:.1f} s" for name, seconds in found["startup"]["seconds"].items()]
    if "growth" in found:
        lines += [
            "",
            "**Growth**, µs per token; by sessions of their prompts, when they are answered, else of a training step:",
            "",
        ]
        for kind, values in found["growth"]["microseconds"].items():
            lines.append(
                f"* by {kind}: " + ", ".join(f"{size}: {value:.0f}" for size, value in _by_size(values).items())
            )
    return "\n".join(lines) + "\n"


def _memory(machine: dict) -> str:
    """What a side's peak is of."""
    on_cpu = machine["devices"][0].startswith("cpu")
    return "resident set of its process" if on_cpu else "GPU memory in use, as its framework's allocator counts"


def _conditions(part: str, found: dict) -> str:
    content = found[part]
    if part == "step":
        tried = ", ".join(content["thread_seconds"])
        best = f" (the best of {tried})" if tried else ""
        return f"torch with {content['threads']} threads{best}; {_losses(content)}"
    if part == "job":
        packs = ", ".join(f"{name} {loss:.4f}" for name, loss in content["pack_losses"].items())
        return (
            f"torch with {content['threads']} threads; one optimizer step at a time, the same examples in the same order; a step of packs holds another number of "
            f"examples, so it is by real tokens per second that kdjax is compared; loss of the first packs' examples: {packs}; {_losses(content)}"
        )
    equal, ties = content["answers"]["equal"], content["answers"]["ties"]
    sizes = ", ".join(f"{size}: {seconds:.1f} s" for size, seconds in _by_size(content["batch_sizes"]).items())
    calls = ", ".join(
        f"{name.removeprefix(f'{OURS}, ')} {rows[0]['calls']} and {rows[0]['joined']}"
        for name, rows in content["replies"].items()
        if "calls" in rows[0]
    )
    return (
        f"torch with {content['threads']} threads; greedy; transformers is compared with mode none, where {equal} answers are equal and {ties} differ where two "
        f"logits tie; transformers by batch size, for a third of the sessions: {sizes}; calls of the decoder after the prompts, "
        f"and tokens that needed none since they were forced: {calls}; one by one: forced tokens are waited for, too; the modes of kdjax share a process, and so its peak"
    )


def _order(replies: dict[str, list[dict]]) -> list[str]:
    """The sides, ours first: of several, the one that computes what the other side does."""
    ours = OURS if OURS in replies else f"{OURS}, none"
    return sorted(replies, key=lambda name: (not name.startswith(ours), not name.startswith(OURS), name))


def _by_size(values: dict[str, float]) -> dict[int, float]:
    """Measurements by ascending size; a JSON file has sizes as text, in any order."""
    return {int(size): values[size] for size in sorted(values, key=int)}


def _losses(content: dict) -> str:
    first, last = (
        ", ".join(f"{name} {values[place]:.4f}" for name, values in content["losses"].items()) for place in (0, -1)
    )
    return f"loss of the first step: {first}; of the last: {last}"


def _table(content: dict, machine: dict) -> list[str]:
    replies, first, order = content["replies"], content["first_turn"], _order(content["replies"])
    rows = [_cells(name, replies, order[0], first[name], machine) for name in order]
    shown = [heading for heading in rows[0] if any(cells[heading] for cells in rows)]
    lines = ["| side | " + " | ".join(shown) + " |", "| --- |" + " ---: |" * len(shown)]
    for name, cells in zip(order, rows, strict=True):
        lines.append(f"| {name} | " + " | ".join(cells[heading] for heading in shown) + " |")
    return lines


def _cells(name: str, replies: dict[str, list[dict]], ours: str, first: float, machine: dict) -> dict[str, str]:
    """Heading → cell; a column that is empty for all sides is not shown."""
    rows = replies[name]
    seconds = np.array([row["seconds"] for row in rows])

    def rate(field: str) -> float | None:
        values = [row[field] / row["seconds"] for row in rows if field in row]
        return float(np.median(values)) if values else None

    found = ratios(replies, name, ours)
    padded = rate("padded_tokens")
    generated = "new_tokens" in rows[0]
    mfu = (
        None
        if padded is None or generated
        else 4 * machine["linear_parameters"] * padded / machine["matmul_rates"]["JAX"]
    )
    spread = f"{seconds.min():.2f}–{seconds.max():.2f}" if len(rows) < MANY else f"{np.percentile(seconds, 95):.2f}"
    return {
        "examples/s": f"{rate('examples'):.3f}",
        "kdjax is faster by": ""
        if name.startswith(OURS)
        else f"{np.median(found):.2f} × [{found.min():.2f}, {found.max():.2f}]",
        "real tokens/s": f"{rate('real_tokens'):.0f}",
        "padded tokens/s": _number(padded, ".0f"),
        "new tokens/s": _number(rate("new_tokens"), ".1f"),
        "s per unit, p50": f"{np.median(seconds):.2f}",
        "min–max" if len(rows) < MANY else "p95": spread,
        "CPU-s": f"{np.median([row['cpu_seconds'] for row in rows]):.2f}",
        "MFU": _number(mfu, ".0%"),
        "first turn − median, s": f"{first:.1f}",
        "peak GiB": f"{max(row['peak_bytes'] for row in rows) / 2**30:.2f}",
    }


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def plot(found: dict, path: Path) -> None:
    """One picture: examples per second of every side and round, and how the time per token grows."""
    parts = [part for part in TITLES if part in found]
    growth = found.get("growth", {}).get("microseconds", {})
    panels = len(parts) + len(growth)
    if not panels:
        return
    figure, axes = plt.subplots(1, panels, figsize=(4 * panels, 3.6), constrained_layout=True, squeeze=False)
    for axis, part in zip(axes[0], parts, strict=False):
        replies = found[part]["replies"]
        for place, name in enumerate(_order(replies)):
            rows = replies[name]
            rates = [row["examples"] / row["seconds"] for row in rows]
            colour = "tab:blue" if name.startswith(OURS) else "tab:gray"
            axis.barh(place, np.median(rates), color=colour, alpha=0.5)
            axis.plot(rates, [place] * len(rates), "|", color="black", markersize=10)
        axis.set(
            yticks=range(len(replies)), yticklabels=_order(replies), xlabel="examples per second", title=TITLES[part]
        )
        axis.invert_yaxis()
    for axis, (kind, values) in zip(axes[0][len(parts) :], growth.items(), strict=True):
        axis.plot(*zip(*_by_size(values).items(), strict=True), "o-")
        label = {"length": "tokens in a row", "rows": "rows of 256 tokens", "sessions": "test sessions"}[kind]
        axis.set(xlabel=label, title="Generation" if kind == "sessions" else "Training step")
        axis.set(ylabel="µs per token", ylim=(0, 1.1 * max(values.values())))
        axis.set_xscale("log", base=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)
