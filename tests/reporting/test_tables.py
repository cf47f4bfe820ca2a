import copy
import io

import pytest
from rich.console import Console

from kdjax.reporting import headline, results_markdown, results_table
from kdjax.reporting.tables import COLUMNS, results

NAMES = ["untrained student", "student, after fine-tuning", "one pair | <b>TF-IDF</b> $x$", "random pair"]


def printed(metrics, width):
    file = io.StringIO()
    Console(file=file, width=width, markup=False).print(results_table(metrics))
    return file.getvalue()


def test_rows_and_cells(metrics):
    table = results(metrics)[0]
    assert table.title == "Test set, 2 domains pooled, 20 sessions"
    assert [row.name for row in table.rows] == NAMES
    assert [row.kind for row in table.rows] == ["student", "student", "baseline", "baseline"]
    expected = ("0.490", "0.512", "0.478", "0.233", "0.391", "2.000", "0.711", "1.250", "0.644", "20/20")
    assert table.rows[1].cells == expected
    assert table.rows[0].cells[-1] == "7/20"
    assert [row.interval for row in table.rows][2:] == [None, (0.05, 0.15)]
    differences = [str(difference) for difference in table.differences]
    assert differences == ["student − untrained student: +0.280 [0.191, 0.372]"]


def test_a_table_per_domain_only_where_there_are_several(metrics):
    assert [table.title for table in results(metrics)][1:] == [
        "Test set, electronic, 10 sessions",
        "Test set, food, 10 sessions",
    ]
    assert results(metrics)[2].rows[1].cells[0] == "0.530"
    del metrics["domains"]["food"]
    assert [table.title for table in results(metrics)] == ["Test set, electronic, 20 sessions"]


def test_synthetic_data_is_called_so(metrics):
    metrics["test"]["synthetic"] = metrics["domains"]["food"]["synthetic"] = True
    assert [table.title for table in results(metrics)] == [
        "Test set, 2 domains pooled, 20 synthetic sessions",
        "Test set, electronic, 10 sessions",
        "Test set, food, 10 synthetic sessions",
    ]
    assert "on 20 synthetic test sessions" in headline(metrics)


def test_without_training_there_is_one_student(metrics):
    for part in ("before", "intervals", "baselines"):
        del metrics["test"][part]
    table = results(metrics)[0]
    assert [(row.name, row.interval) for row in table.rows] == [("student", None)] and table.differences == ()
    assert headline(metrics) == "The student reaches a strict F1 of 0.490 on 20 test sessions."


def test_a_null_shows_as_a_dash(metrics):
    metrics["test"]["strict"]["f1"] = None
    metrics["test"]["intervals"] = {"after": [None, None], "after_minus_before": [None, None, None]}
    table = results(metrics)[0]
    assert table.rows[1].cells[0] == "–" and table.rows[1].interval is None and table.differences == ()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_console_shows_the_strict_numbers_at_any_width(metrics, width):
    text = printed(metrics, width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    strict = [place for place, (group, _, _) in enumerate(COLUMNS) if group == "strict"]
    for row in [row for table in results(metrics) for row in table.rows]:
        assert all(row.cells[place] in text for place in strict)
    assert "[0.151, 0.268]" in text and "strict F1, student − untrained student: +0.280 [0.191, 0.372]" in text
    assert "20/20" not in text  # the paper's columns are the report's


def test_markdown_has_a_line_per_row_and_as_many_cells_in_each(metrics):
    lines = [line for line in results_markdown(metrics).splitlines() if line.startswith("|")]
    assert len(lines) == 3 * (2 + len(NAMES))
    assert {line.replace("\\|", "").count("|") for line in lines} == {12}
    assert "| untrained student | 0.210 [0.151, 0.268] | 0.512 |" in lines[2]


@pytest.mark.parametrize("f1, side", [(0.55, "below"), (0.4, "level with"), (0.3, "above")])
def test_without_a_paired_difference_the_headline_says_which_number_is_higher(metrics, f1, side):
    metrics["test"]["strict"]["f1"] = f1
    del metrics["test"]["before"], metrics["test"]["intervals"]["after_minus_before"]
    metrics["test"]["baselines"] = {"weak": scored(metrics, 0.2), "strong": scored(metrics, 0.4)}
    text = headline(metrics)
    assert f"The student reaches a strict F1 of {f1:.3f} (95 % interval 0.440 to 0.540) on 20 test sessions" in text
    assert text.endswith(f"The strongest baseline (“strong”) reaches 0.400, {side} the student.")


@pytest.mark.parametrize(
    "interval, claim",
    [
        (
            [0.03, 0.01, 0.05],
            "It is better than the strongest baseline (“strong”), which reaches 0.400 (difference +0.030 [0.010, 0.050])",
        ),
        (
            [-0.03, -0.05, -0.01],
            "It is worse than the strongest baseline (“strong”), which reaches 0.400 (difference -0.030 ",
        ),
        (
            [0.03, -0.01, 0.07],
            "It cannot be told apart from the strongest baseline (“strong”), which reaches 0.400 (difference +0.030 ",
        ),
        ([0.03, 0.0, 0.07], "It cannot be told apart from the strongest baseline"),
    ],
)
def test_the_headline_claims_no_more_than_its_interval(metrics, interval, claim):
    metrics["test"]["baselines"] = {"weak": scored(metrics, 0.2), "strong": scored(metrics, 0.4)}
    metrics["test"]["intervals"] |= {"after_minus_strong": interval}
    text = headline(metrics)
    assert claim in text
    assert "It is better than the untrained student, which reaches 0.210 (difference +0.280 [0.191, 0.372])" in text


def test_a_student_that_judges_pairs_is_called_frozen_before_fine_tuning(metrics):
    metrics["test"]["pairs"] = {"auc": 0.8, "nll": 0.5, "n": 100}
    assert results(metrics)[0].rows[0].name == "frozen student"
    assert "than the frozen student, which reaches 0.210 (" in headline(metrics)


def scored(metrics, f1):
    groups = copy.deepcopy(metrics["test"]["baselines"]["random pair"])
    groups["strict"]["f1"] = f1
    return groups
