"""The report's plots as inline SVG: the same bytes for the same numbers, colours that follow the page's theme."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from textwrap import fill
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from kdjax.reporting.tables import Row

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

# Matplotlib needs a colour, the page has a name for it: the first becomes the second in the SVG.
INK, MUTED, LINE, STUDENT, BASELINE = "#010203", "#010204", "#010205", "#010206", "#010207"
THEME = {INK: "--ink", MUTED: "--muted", LINE: "--line", STUDENT: "--accent", BASELINE: "--muted"}
STYLE: "dict[RcKeyType, object]" = {
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 11,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "svg.fonttype": "none",  # text stays text: it takes the page's font and can be read aloud
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}
WIDTH = 4.4  # inches; small enough to stay legible on a phone
MOST_POINTS = 600  # a longer curve is averaged to this many points


@dataclass(frozen=True)
class Plot:
    """A figure of the report: `alt` says in words what the drawing shows."""

    title: str
    alt: str
    svg: str


def forest(rows: Sequence[Row], title: str, name: str) -> Plot | None:
    """Strict F1 of every predictor with its 95 % interval; None where no row has a number."""
    scored = [(row, row.f1) for row in rows if row.f1 is not None]
    if not scored:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.7 + 0.46 * len(scored)), layout="constrained")
        axes = figure.subplots()
        for y, (row, f1) in enumerate(scored):
            color = STUDENT if row.kind == "student" else BASELINE
            if row.interval:
                axes.plot(row.interval, (y, y), color=color, linewidth=2, solid_capstyle="round")
            axes.plot(f1, y, marker="o" if row.kind == "student" else "s", markersize=6, color=color)
            axes.text(0, y - 0.34, row.name, parse_math=False, va="center", transform=axes.get_yaxis_transform())
        top = max(0.05, *(max((f1, *(row.interval or ()))) for row, f1 in scored))
        axes.set(xlim=(0, top * 1.06), ylim=(len(scored) - 0.6, -0.75), yticks=[])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("strict F1")
        alt = "; ".join(f"{row.name} {row.cells[0]}" for row, _ in scored)
        return Plot(title, f"Strict F1: {alt}", _svg(figure, name))


def calibration(groups: Sequence[tuple[float, float, int]], title: str, name: str) -> Plot:
    """Of groups of pairs, (mean probability, share that is true, number of pairs): the nearer to the diagonal the better.

    Lines are 95 % intervals of the share (Wilson 1927).
    """
    z = 1.96
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
        axes: Axes = figure.subplots()
        axes.plot((0, 1), (0, 1), color=MUTED, linestyle=":", linewidth=1)
        for probability, share, n in groups:
            center, half = share + z * z / (2 * n), z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
            low, high = ((center + side * half) / (1 + z * z / n) for side in (-1, 1))
            axes.plot((probability, probability), (low, high), color=STUDENT, linewidth=1.5, alpha=0.6)
        means, shares, _ = zip(*groups, strict=True)
        axes.plot(means, shares, "o-", color=STUDENT, markersize=5)
        axes.set(
            xlim=(0, 1), ylim=(0, 1), xlabel="probability that two products share a bundle", ylabel="share that do"
        )
        said = "; ".join(f"{share:.2f} at {probability:.2f} ({n} pairs)" for probability, share, n in groups)
        return Plot(title, f"{title}: {said}", _svg(figure, name))


def curves(history: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Training loss and learning rate per step and validation strict F1 per epoch, each where `history` has it.

    Where a continued run repeats a step or an epoch, the last one counts.
    """
    plots = [
        _curve("Training loss", "step", "loss", _series(history, "step", "loss"), smooth=True),
        _curve("Validation strict F1", "epoch", "strict F1", _validation(history)),
        _curve("Learning rate", "step", "learning rate", _series(history, "step", "learning_rate")),
    ]
    return [plot for plot in plots if plot]


def _series(history: Sequence[Mapping[str, Any]], x: str, y: str) -> list[tuple[float, float]]:
    return sorted({row[x]: row[y] for row in history if row.get(y) is not None}.items())


def _validation(history: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    rows = [row for row in history if "validation" in row and row["validation"]["strict"]["f1"] is not None]
    return sorted({row["epoch"]: row["validation"]["strict"]["f1"] for row in rows}.items())


def _curve(title: str, x: str, y: str, points: list[tuple[float, float]], smooth: bool = False) -> Plot | None:
    if not points:
        return None
    xs, ys = (_shortened(np.asarray(values, float)) for values in zip(*points, strict=True))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        axes: Axes = figure.subplots()
        marker = "o" if len(xs) <= 30 else ""
        if smooth and len(xs) > 30:
            axes.plot(xs, ys, color=STUDENT, alpha=0.3, linewidth=1)
            axes.plot(xs, _smoothed(ys), color=STUDENT, linewidth=2)
        else:
            axes.plot(xs, ys, color=STUDENT, linewidth=2, marker=marker, markersize=4)
        axes.set(xlabel=x, ylabel=y)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if min(ys) >= 0:
            axes.set_ylim(bottom=0)
        (first, start), (last, end) = points[0], points[-1]
        alt = f"{title}: from {start:.4g} at {x} {first:g} to {end:.4g} at {x} {last:g}, {len(points)} points"
        return Plot(title, alt, _svg(figure, title.lower().replace(" ", "-")))


def ratio_curves(curves: dict[str, list[tuple[float, float, float, float]]], title: str, name: str) -> Plot:
    """A line per strategy through (ratio, strict F1, low, high), with its 95 % interval as a band."""
    styles = ("-", "--", ":", "-.")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        axes: Axes = figure.subplots()
        for style, (strategy, points) in zip(cycle(styles), curves.items(), strict=False):
            ratios, f1, low, high = (np.asarray(values) for values in zip(*points, strict=True))
            axes.plot(ratios, f1, color=STUDENT, linestyle=style, marker="o", markersize=4, label=strategy)
            axes.fill_between(ratios, low, high, color=STUDENT, alpha=0.12, linewidth=0)
        axes.set(xlabel="share of the training sessions", ylabel="strict F1")
        axes.legend(frameon=False, fontsize=9)
        told = (
            f"{strategy}: " + ", ".join(f"{p[1]:.3f} at {p[0]:g}" for p in points)
            for strategy, points in curves.items()
        )
        return Plot(title, f"{title}. {'; '.join(told)}", _svg(figure, name))


def heat_map(values: dict[tuple[str, str], float], title: str, name: str) -> Plot:
    """Strict F1 by (row, column): the stronger the colour the better, in the range of what is there; what is not there stays empty."""
    rows, columns = (list(dict.fromkeys(key[axis] for key in values)) for axis in (0, 1))
    lowest, highest = min(values.values()), max(values.values())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * len(rows)), layout="constrained")
        axes: Axes = figure.subplots()
        for (row, column), f1 in values.items():
            x, y = columns.index(column), rows.index(row)
            strength = 0.1 + 0.6 * (f1 - lowest) / max(highest - lowest, 1e-9)
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=STUDENT, alpha=strength, linewidth=0))
            axes.text(x, y, f"{f1:.3f}", ha="center", va="center", fontsize=10)
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
        axes.set_xticks(range(len(columns)), [fill(column, 12) for column in columns], fontsize=9, parse_math=False)
        axes.set_yticks(range(len(rows)), rows, fontsize=9, parse_math=False)
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        told = "; ".join(f"{row}, {column}: {f1:.3f}" for (row, column), f1 in values.items())
        return Plot(title, f"{title}. {told}", _svg(figure, name))


def token_scatter(points: Sequence[tuple[float, float, str]], title: str, name: str) -> Plot:
    """Quality against what a prompt costs: (mean tokens, strict F1, name) of each cell.

    The names stand in a column, each with a line to its point, since cells that cost the same lie close together.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, max(2.9, 0.8 + 0.16 * len(points))), layout="constrained")
        axes: Axes = figure.subplots()
        for place, (tokens, f1, label) in enumerate(sorted(points, key=lambda point: -point[1])):
            axes.plot(tokens, f1, "o", color=STUDENT, markersize=5)
            axes.annotate(
                label,
                (tokens, f1),
                xytext=(1.06, 1 - (place + 0.5) / len(points)),
                textcoords="axes fraction",
                va="center",
                fontsize=8,
                color=MUTED,
                parse_math=False,
                arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "relpos": (0, 0.5), "shrinkB": 4},
            )
        axes.margins(x=0.1, y=0.1)
        axes.set(xlabel="tokens of a prompt, mean", ylabel="strict F1")
        told = "; ".join(f"{label}: {f1:.3f} at {tokens:.0f}" for tokens, f1, label in points)
        return Plot(title, f"{title}. {told}", _svg(figure, name))


def _shortened(values: np.ndarray) -> np.ndarray:
    """Means of MOST_POINTS consecutive groups, so that a long run does not make a large file."""
    if len(values) <= MOST_POINTS:
        return values
    return np.array([group.mean() for group in np.array_split(values, MOST_POINTS)])


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Centred moving mean over a twentieth of the curve; the window shrinks at the ends."""
    half = max(1, len(values) // 40)
    return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])


def _svg(figure: Figure, name: str) -> str:
    """Draw as an `<svg>` element without date, namespaces or addresses; ids begin with `name`, unique in the page."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "kdjax"}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawn = re.search(r'<svg[^>]*(viewBox="[^"]*")[^>]*>(.*)</svg>', buffer.getvalue(), flags=re.DOTALL)
    assert drawn is not None  # as Matplotlib writes them
    viewbox, body = drawn.groups()
    body = re.sub(r'(id="|xlink:href="#|url\(#)', rf"\g<1>{name}-", body)
    for color, variable in THEME.items():
        body = body.replace(color, f"var({variable})")
    return f'<svg {viewbox} aria-hidden="true">{body}</svg>'
