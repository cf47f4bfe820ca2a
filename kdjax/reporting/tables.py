"""The results of a run as tables: one reading of `metrics.json` for the console, Markdown and the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from kdjax.evaluation import KINDS

# (group in metrics.json, field, heading); "answered" also shows n
COLUMNS = (
    ("strict", "f1", "F1"),
    ("strict", "precision", "precision"),
    ("strict", "recall", "recall"),
    ("strict", "exact_f1", "exact F1"),
    ("strict", "pair_f1", "pair F1"),
    ("strict", "valid_rate", "valid"),
    ("paper", "precision", "P"),
    ("paper", "recall", "R"),
    ("paper", "coverage", "coverage"),
    ("paper", "n_answered", "answered"),
)
CONSOLE = "strict"  # the group that the console shows, in 100 columns; the report and metrics.json have all
NOTHING = "–"  # shown for a value that is absent or null


@dataclass(frozen=True)
class Row:
    """One predictor's line: `cells` in the order of COLUMNS, `errors` of KINDS (empty where they were not counted);
    `f1` and its 95 % `interval` are the strict F1."""

    name: str
    kind: str  # "student" or "baseline"
    cells: tuple[str, ...]
    errors: tuple[int, ...]
    f1: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Difference:
    """Strict F1 of one predictor minus another's, paired over sessions, with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.name}: {self.value:+.3f} {interval_text((self.low, self.high))}"


@dataclass(frozen=True)
class Results:
    """One table: the pooled test set or one domain."""

    title: str
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]


def interval_text(interval: tuple[float, float] | None) -> str:
    """`[0.431, 0.527]`, or nothing where there is no interval."""
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""


def results(metrics: Mapping[str, Any]) -> list[Results]:
    """Read `metrics.json`: the test set first, then each domain where there is more than one."""
    domains = metrics.get("domains", {})
    name = next(iter(domains)) if len(domains) == 1 else f"{len(domains)} domains pooled" if domains else ""
    tables = [_results(f"Test set, {name}" if name else "Test set", metrics["test"])]
    if len(domains) > 1:
        tables += [_results(f"Test set, {domain}", result) for domain, result in domains.items()]
    return tables


def _results(title: str, result: dict[str, Any]) -> Results:
    intervals = {name: values for name, values in result.get("intervals", {}).items() if None not in values}
    entries = []
    if result.get("before"):
        # A student that judges pairs has a trained head even before fine-tuning.
        untrained = "frozen student" if "pairs" in result else "untrained student"
        entries.append(("before", untrained, "student", result["before"]))
    name = "student, after fine-tuning" if result.get("before") else "student"
    entries.append(("after", name, "student", result))
    baselines = result.get("baselines", {})
    entries += [(name, name, "baseline", values) for name, values in baselines.items()]
    errors = result.get("errors", {})
    rows = tuple(
        Row(
            name,
            kind,
            _cells(values, result["n"]),
            tuple(errors[system][error] for error in KINDS) if system in errors else (),
            values["strict"]["f1"],
            tuple(intervals[system]) if system in intervals else None,
        )
        for system, name, kind, values in entries
    )
    names = {system: name for system, name, _, _ in entries}
    differences = tuple(
        Difference(f"student − {names.get(other, other)}", *intervals[key])
        for key in intervals
        if (other := key.removeprefix("after_minus_")) != key
    )
    kind = "synthetic sessions" if result.get("synthetic") else "sessions"
    return Results(f"{title}, {result['n']} {kind}", rows, differences)


def _cells(values: dict[str, Any], n: int) -> tuple[str, ...]:
    numbers = [values[group].get(field) for group, field, _ in COLUMNS]
    cells = [NOTHING if number is None else f"{number:.3f}" for number in numbers[:-1]]
    return (*cells, f"{numbers[-1]}/{n}")


@dataclass(frozen=True)
class ResultsTable:
    """What rich prints for the results: a table for the test set and, with several domains, one for each."""

    results: tuple[Results, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """On a console of fewer than 100 columns an interval comes below its number."""
        before_interval = " " if options.max_width >= 100 else "\n"
        for content in self.results:
            yield _console_table(content, before_interval)
            yield from (f"strict F1, {difference}" for difference in content.differences)


def results_table(metrics: dict[str, Any]) -> ResultsTable:
    """The tables for the console, to be printed with rich (`RunLog.say`)."""
    return ResultsTable(tuple(results(metrics)))


def _console_table(content: Results, before_interval: str) -> Table:
    table = Table(title=content.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    shown = [index for index, (group, _, _) in enumerate(COLUMNS) if group == CONSOLE]
    for _, _, heading in (COLUMNS[index] for index in shown):
        table.add_column(f"strict {heading}" if heading == "F1" else heading, justify="right", no_wrap=True)
    for row in content.rows:
        cells = _with_interval(row, before_interval)
        table.add_row(row.name, *(cells[index] for index in shown))
    return table


def _with_interval(row: Row, before: str = " ") -> tuple[str, ...]:
    return ((row.cells[0] + before + interval_text(row.interval)).strip(), *row.cells[1:])


def results_markdown(metrics: Mapping[str, Any]) -> str:
    """The same tables as GitHub Markdown, ending in a newline."""
    return "\n".join(_markdown(table) for table in results(metrics))


def _markdown(content: Results) -> str:
    headings = ["", *(f"{group} {heading}" for group, _, heading in COLUMNS)]
    lines = [headings, ["---", *("---:" for _ in COLUMNS)]]
    for row in content.rows:
        lines.append([row.name.replace("|", "\\|"), *_with_interval(row)])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    differences = "".join(f"* strict F1, {difference}\n" for difference in content.differences)
    return f"**{content.title}**, 95 % intervals in brackets\n\n{table}\n" + (f"\n{differences}" if differences else "")


def headline(metrics: Mapping[str, Any]) -> str:
    """What the run found, in two or three sentences that claim no more than their intervals.

    The student is compared with its untrained self and with the strongest baseline; where the 95 % interval of a paired
    difference holds 0, the two cannot be told apart.
    """
    table = results(metrics)[0]
    before, after = ([row for row in table.rows if row.kind == "student"] * 2)[-2:]
    trained = before is not after
    who = "The fine-tuned student" if trained else "The student"
    kind = "synthetic " if metrics["test"].get("synthetic") else ""
    sentences = [f"{who} reaches a strict F1 of {_f1(after)} on {metrics['test']['n']} {kind}test sessions"]
    baselines = [(row, row.f1) for row in table.rows if row.kind == "baseline" and row.f1 is not None]
    best = max(baselines, key=lambda scored: scored[1], default=(None, 0.0))[0]
    compared = [(before, f"the {before.name.removeprefix('the ')}")] if trained else []
    compared += [(best, f"the strongest baseline (“{best.name}”)")] if best else []
    differences = {difference.name: difference for difference in table.differences}
    for row, name in compared:
        sentences.append(_comparison(row, name, differences.get(f"student − {row.name}"), after))
    return ". ".join(sentence[0].upper() + sentence[1:] for sentence in sentences) + "."


def _comparison(row: Row, name: str, difference: Difference | None, after: Row) -> str:
    """How the student compares with another row."""
    if difference is None:
        side = "" if row.f1 is None or after.f1 is None else f", {_side(row.f1 - after.f1)} the student"
        return f"{name} reaches {_f1(row)}{side}"
    by = f"{difference.value:+.3f} {interval_text((difference.low, difference.high))}"
    if difference.low <= 0.0 <= difference.high:
        return f"it cannot be told apart from {name}, which reaches {row.cells[0]} (difference {by})"
    return f"it is {'better' if difference.value > 0 else 'worse'} than {name}, which reaches {row.cells[0]} (difference {by})"


def _f1(row: Row) -> str:
    return row.cells[0] + (f" (95 % interval {row.interval[0]:.3f} to {row.interval[1]:.3f})" if row.interval else "")


def _side(difference: float) -> str:
    return "level with" if round(difference, 3) == 0 else "above" if difference > 0 else "below"
