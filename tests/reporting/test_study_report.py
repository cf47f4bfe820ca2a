"""The files of a study, from a few rows."""

import csv
import re

import pytest

from kdjax.reporting import write_study

NUMBERS = (
    "precision",
    "recall",
    "exact_f1",
    "pair_f1",
    "valid_rate",
    "paper_precision",
    "paper_recall",
    "paper_coverage",
)


def row(name, kind="cell", domain="d_1", **fields):
    plain = {
        "domain": domain,
        "name": name,
        "kind": kind,
        "seeds": 1,
        "n": 20,
        "unanswered": 1.5,
        "rescued": None,
        "f1": 0.5,
        "sd": None,
    }
    plain |= {"f1_low": 0.4, "f1_high": 0.6, **dict.fromkeys(NUMBERS, 0.25), "prompt_tokens": None}
    return plain | dict.fromkeys(("against", "difference", "low", "high", "p", "holm")) | fields


ROWS = [
    row("none", prompt_tokens=100.0),
    row(
        "rules & <b>",
        seeds=3,
        sd=0.01,
        f1=0.6,
        rescued=4.0,
        prompt_tokens=150.0,
        against="none",
        difference=0.1,
        low=0.02,
        high=0.2,
        p=0.004,
        holm=0.012,
    ),
    row("whole | session", "baseline", f1=0.3),
]


@pytest.fixture
def written(tmp_path):
    def write(folder="a", **fields):
        (tmp_path / folder).mkdir()
        given = {
            "name": "study_x",
            "about": "Does it?",
            "rows": ROWS,
            "differ": {"none": {}, "rules & <b>": {"a.b": (1,)}},
        }
        given |= {
            "samples": {},
            "uses": {},
            "cards": {},
            "leaks": {"d_1": {"shared": "3 of 20"}},
            "notes": ["Synthetic data: d_1."],
        }
        write_study(tmp_path / folder, **given | fields)
        return tmp_path / folder

    return write


def test_the_csv_has_every_number(written):
    found = list(csv.DictReader((written() / "study.csv").read_text().splitlines()))
    assert [one["name"] for one in found] == [one["name"] for one in ROWS]
    assert found[1]["holm"] == "0.012" and found[0]["holm"] == "" and found[1]["against"] == "none"


def test_the_tables_show_intervals_differences_and_who_did_not_answer(written):
    folder = written()
    text = (folder / "study.md").read_text()
    assert "Synthetic data: d_1" in text and "**d_1, 20 test sessions**" in text
    [line] = [line for line in text.splitlines() if line.startswith("| rules")]
    assert "rules & <b> (3 seeds) | 0.600 [0.400, 0.600] | 0.010" in line
    assert "| +0.100 [0.020, 0.200] to none | 0.0120 |" in line and "1.5/20 | 4/20 | 150" in line
    assert "whole \\| session" in text and "* d_1, shared: 3 of 20" in text
    columns = {line.count(" | ") for line in text.replace("\\|", "").splitlines() if line.startswith("| ")}
    assert len(columns) == 1


def test_the_latex_table_is_whole(written):
    text = (written() / "study.tex").read_text()
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 1 and "rules \\& <b>" in text
    rows = [line for line in text.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {13} and len(rows) == 4
    assert text.count("\\midrule") == 2  # below the head, and between cells and baselines
    assert "{Synthetic data: d\\_1.}" in text and "\n% Strict F1 is of all seeds" in text


def test_the_report_needs_no_network_and_escapes_what_it_shows(written):
    text = (written() / "report.html").read_text()
    assert "rules &amp; &lt;b&gt;" in text and "<b>" not in text.split("<main>")[1].replace('<b class="letter">', "")
    assert "://" not in text and "src=" not in text and "Synthetic data" in text and "--config.a.b=" in text
    assert text.count("<figure>") == 2  # the intervals, and F1 by tokens


def test_uses_make_a_heat_map(written):
    uses = {"none": ("none", "in context"), "rules & <b>": ("rules <i>", "fine-tuned, pairs")}
    text = (written(uses=uses) / "report.html").read_text()
    assert (
        "Strict F1 by format and use, d_1. none, in context: 0.500; rules &lt;i&gt;, fine-tuned, pairs: 0.600" in text
    )
    assert "Strict F1 by format and use" not in (written("b") / "report.html").read_text()


def test_samples_make_a_curve_per_strategy_and_all_sessions_end_it(written):
    rows = [*ROWS, row("half", f1=0.55, prompt_tokens=99.0), row("other", f1=0.9, prompt_tokens=99.0)]
    samples = {"none": (0.1, "random"), "half": (0.5, "length"), "rules & <b>": (1.0, "random")}
    text = (written(rows=rows, samples=samples) / "report.html").read_text()
    assert text.count("<figure>") == 3
    assert "random: 0.500 at 0.1, 0.600 at 1; length: 0.550 at 0.5, 0.600 at 1" in text


def test_the_same_rows_give_the_same_bytes(written):
    one, other = written("a"), written("b")
    for name in ("study.csv", "study.md", "study.tex", "report.html"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
