"""What a study leaves for people: study.csv with every number, study.md and study.tex with the tables, report.html with plots."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax.reporting.files import plain, write_jsonl, write_text
from kdjax.reporting.report import MOST_ROWS, page
from kdjax.reporting.tables import NOTHING, Row, interval_text

HEADINGS = (
    "",
    "strict F1",
    "± seeds",
    "difference",
    "p",
    "exact F1",
    "pair F1",
    "valid",
    "paper P",
    "paper R",
    "paper coverage",
    "unanswered",
    "rescued",
    "prompt tokens",
)
LEGEND = (
    "Strict F1 is of all seeds' answers, with a 95 % bootstrap interval over test sessions for these seeds; ± is the standard deviation "
    "over seeds, which no interval and no p contains. A difference is in strict F1, paired over sessions, to the row it names; p is Holm's, "
    "over the differences of a table. "
    "Exact F1 asks for equal sets, pair F1 compares product pairs. In the paper's metrics a subset of a true bundle is a hit, repeats "
    "count, and sessions without an answer are left out: unanswered is their number, a mean over seeds. "
    "Rescued answers are those in which the automaton (eval.constraint) forbade what the student would have written. "
    "Prompt tokens are those of one prompt; a student that judges pairs reads eval.orders of them for each session, and AICL's are those of all its turns."
)


@dataclass(frozen=True)
class Line:
    """A row as it is shown: `cells` in the order of HEADINGS; `kind` is "cell" or "baseline"."""

    kind: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class StudyTable:
    """One domain's rows."""

    title: str
    rows: tuple[Line, ...]


def write_study(
    folder: Path,
    *,
    name: str,
    about: str,
    rows: Sequence[Mapping[str, Any]],
    differ: Mapping[str, Mapping[str, Any]],
    samples: Mapping[str, tuple[float, str]],
    uses: Mapping[str, tuple[str, str]],
    cards: Mapping[str, Sequence[Mapping[str, Any]]],
    leaks: Mapping[str, Mapping[str, str]],
    notes: Sequence[str],
) -> None:
    """Write study.csv, study.md, study.tex, report.html and knowledge/ into `folder`; the same arguments give the same bytes.

    Args:
        rows: of `kdjax.study.outcome`, one per cell (or baseline) and domain.
        differ: cell → the fields in which it differs from the study's config.
        samples: cell → (share of the training sessions, strategy) of those that make a curve; may be empty.
        uses: cell → (format of the knowledge, how it is used) of those that make a heat map; may be empty.
        cards: knowledge cards by "domain/format".
        leaks: domain → what was checked for leaks → what was counted.
        notes: what a reader has to know before any number.
    """
    from kdjax.reporting.plots import forest, heat_map, ratio_curves, token_scatter

    tables = _tables(rows)
    write_text(folder / "study.csv", _csv(rows))
    write_text(folder / "study.md", _markdown(name, about, tables, leaks, notes))
    write_text(folder / "study.tex", _latex(tables, notes))
    plots = []
    for index, domain in enumerate(dict.fromkeys(row["domain"] for row in rows)):
        mine = [row for row in rows if row["domain"] == domain]
        cells = [row for row in mine if row["kind"] == "cell"]
        plots.append(forest([_forest_row(row) for row in mine], f"Strict F1, {domain}", f"forest{index}"))
        curves = _curves(cells, samples)
        if curves:
            plots.append(
                ratio_curves(curves, f"Strict F1 by share of the training sessions, {domain}", f"ratio{index}")
            )
        places = {uses[row["name"]]: row["f1"] for row in cells if row["name"] in uses}
        if places:
            plots.append(heat_map(places, f"Strict F1 by format and use, {domain}", f"heat{index}"))
        points = [(row["prompt_tokens"], row["f1"], row["name"]) for row in cells]
        plots.append(token_scatter(points, f"Strict F1 by tokens of the prompt, {domain}", f"tokens{index}"))
    html = page("study.html").render(
        name=name,
        about=about,
        tables=tables,
        headings=HEADINGS,
        legend=LEGEND,
        plots=[plot for plot in plots if plot],
        differ=plain(differ),
        cards=cards,
        leaks=plain(leaks),
        most=MOST_ROWS,
        notes=notes,
    )
    write_text(folder / "report.html", html)
    for of, of_all_runs in cards.items():
        write_jsonl(folder / "knowledge" / f"{of}.jsonl", of_all_runs)


def _curves(
    cells: Sequence[Mapping[str, Any]], samples: Mapping[str, tuple[float, str]]
) -> dict[str, list[tuple[float, float, float, float]]]:
    """Strategy → (ratio, strict F1, low, high) by ratio; all sessions are the end of every curve."""
    drawn = [(*samples[row["name"]], row) for row in cells if row["name"] in samples]
    curves: dict[str, list] = {strategy: [] for ratio, strategy, _ in drawn if ratio < 1}
    for ratio, strategy, row in sorted(drawn, key=lambda one: one[0]):
        for curve in curves.values() if ratio == 1 else [curves[strategy]]:
            curve.append((ratio, row["f1"], row["f1_low"], row["f1_high"]))
    return curves


def _tables(rows: Sequence[Mapping[str, Any]]) -> list[StudyTable]:
    domains = dict.fromkeys(row["domain"] for row in rows)
    return [
        StudyTable(
            f"{domain}, {next(row['n'] for row in rows if row['domain'] == domain)} test sessions",
            tuple(Line(row["kind"], _cells(row)) for row in rows if row["domain"] == domain),
        )
        for domain in domains
    ]


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    def number(key: str, digits: int = 3) -> str:
        return NOTHING if row[key] is None else f"{row[key]:.{digits}f}"

    difference = NOTHING
    if row["difference"] is not None:
        difference = f"{row['difference']:+.3f} {interval_text((row['low'], row['high']))} to {row['against']}"
    return (
        row["name"] + (f" ({row['seeds']} seeds)" if row["seeds"] > 1 else ""),
        f"{row['f1']:.3f} {interval_text((row['f1_low'], row['f1_high']))}",
        number("sd"),
        difference,
        number("holm", 4),
        *map(number, ("exact_f1", "pair_f1", "valid_rate", "paper_precision", "paper_recall", "paper_coverage")),
        f"{row['unanswered']:.4g}/{row['n']}",
        NOTHING if row["rescued"] is None else f"{row['rescued']:.4g}/{row['n']}",
        number("prompt_tokens", 0),
    )


def _forest_row(row: Mapping[str, Any]) -> Row:
    kind = "student" if row["kind"] == "cell" else "baseline"
    return Row(row["name"], kind, (f"{row['f1']:.3f}",), (), row["f1"], (row["f1_low"], row["f1_high"]))


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _markdown(
    name: str,
    about: str,
    tables: Sequence[StudyTable],
    leaks: Mapping[str, Mapping[str, str]],
    notes: Sequence[str],
) -> str:
    parts = [f"# {name}", about, *notes]
    for table in tables:
        lines = [HEADINGS, ("---", *("---:" for _ in HEADINGS[1:])), *(line.cells for line in table.rows)]
        text = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        parts.append(f"**{table.title}**\n\n{text}")
    found = [f"* {domain}, {what}: {count}" for domain, counts in leaks.items() for what, count in counts.items()]
    return "\n\n".join([*parts, LEGEND, "Leak checks:", "\n".join(found)]) + "\n"


def _latex(tables: Sequence[StudyTable], notes: Sequence[str]) -> str:
    head = f"% \\usepackage{{booktabs}}\n% {LEGEND}"
    return "\n".join([head, *(_latex_table(table, notes) for table in tables)])


def _latex_table(table: StudyTable, notes: Sequence[str]) -> str:
    lines = [
        f"\\begin{{tabular}}{{l{'r' * (len(HEADINGS) - 1)}}}",
        "\\toprule",
        f"\\multicolumn{{{len(HEADINGS)}}}{{l}}{{{_tex(table.title)}}} \\\\",
        *(f"\\multicolumn{{{len(HEADINGS)}}}{{p{{\\linewidth}}}}{{{_tex(note)}}} \\\\" for note in notes),
        " & ".join(map(_tex, HEADINGS)) + " \\\\",
        "\\midrule",
    ]
    for before, line in zip((None, *table.rows), table.rows, strict=False):
        if before and before.kind != line.kind:
            lines.append("\\midrule")
        lines.append(" & ".join(map(_tex, line.cells)) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _tex(text: str) -> str:
    for sign in "\\&%$#_{}~^":
        text = text.replace(
            sign, {"\\": "\\textbackslash ", "~": "\\textasciitilde ", "^": "\\textasciicircum "}.get(sign, "\\" + sign)
        )
    return text.replace("±", "$\\pm$").replace("−", "$-$").replace("–", "--")
