"""The checker of the leaderboard: a right file has the metrics of every run here, a wrong one is named by its line."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from configs import score as score_config
from kdjax.data import load_domain
from kdjax.errors import InputError
from kdjax.evaluation import bootstrap_interval, score, session_counts
from kdjax.study import score_predictions
from kdjax.study.leaderboard import HEADINGS, OFFICIAL, markdown_row, score_files
from kdjax.study.outcome import POOLED, RESAMPLES

DOCS = Path(__file__).resolve().parents[2] / "docs" / "LEADERBOARD.md"


@pytest.fixture(scope="module")
def domains():
    """Two domains with different test sessions."""
    demo = load_domain("demo", "", "demo")
    test = demo.splits["test"]
    return {name: replace(demo, splits={"test": part}) for name, part in (("one", test[:9]), ("two", test[9:25]))}


def guesses(domains, seed=0):
    """Domain → bundles of 0-based positions per test session, drawn."""
    draw = Random(seed)
    return {
        name: [
            [tuple(draw.sample(range(len(session)), draw.randint(1, len(session)))) for _ in range(draw.randint(0, 3))]
            for session in domain.splits["test"]
        ]
        for name, domain in domains.items()
    }


def rows_of(domains, predicted):
    return [
        {
            "domain": name,
            "session_id": session.id,
            "items": list(session.items),
            "truth": [[item + 1 for item in bundle] for bundle in session.bundles],
            "predicted": [[item + 1 for item in bundle] for bundle in bundles],
            "text": "more fields do no harm",
        }
        for name, domain in domains.items()
        for session, bundles in zip(domain.splits["test"], predicted[name], strict=True)
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("with_data", [True, False])
def test_a_right_file_has_the_metrics_of_score(with_data, domains, tmp_path):
    predicted = guesses(domains)
    rows = rows_of(domains, predicted)
    if with_data:  # in what order the sessions and the true bundles are does not matter
        rows = [row | {"truth": [bundle[::-1] for bundle in row["truth"]][::-1]} for row in rows[::-1]]
    found = score_files([write(tmp_path / "p.jsonl", rows)], domains if with_data else {})
    truth = {name: [session.bundles for session in domain.splits["test"]] for name, domain in domains.items()}
    predicted[POOLED], truth[POOLED] = (of["one"] + of["two"] for of in (predicted, truth))
    assert [row["domain"] for row in found] == ["one", "two", POOLED]
    for row in found:
        wanted = score(predicted[row["domain"]], truth[row["domain"]])
        got = {name: row[name] for name in ("precision", "recall", "exact_f1", "pair_f1", "valid_rate")}
        assert got | {"f1": row["f1"]} == pytest.approx(wanted["strict"])
        assert [row[f"paper_{name}"] for name in ("precision", "recall", "coverage")] == pytest.approx(
            [wanted["paper"][name] for name in ("precision", "recall", "coverage")]
        )
        counts = session_counts(predicted[row["domain"]], truth[row["domain"]])
        assert (row["f1_low"], row["f1_high"]) == bootstrap_interval(counts, "strict.f1", resamples=RESAMPLES)


def test_seeds_are_scored_together(domains, tmp_path):
    files = [write(tmp_path / f"{seed}.jsonl", rows_of(domains, guesses(domains, seed))) for seed in range(2)]
    alone = [score_files([file], domains)[0] for file in files]
    both = score_files(files, domains)[0]
    assert min(row["f1"] for row in alone) < both["f1"] < max(row["f1"] for row in alone)
    assert both["seeds"] == 2 and both["sd"] == pytest.approx(abs(alone[0]["f1"] - alone[1]["f1"]) / 2**0.5)


def at(line, **fields):
    """The change that gives a line other fields."""

    def change(rows):
        rows[line - 1] |= fields

    return change


FAULTS = {
    "another truth": (at(3, truth=[[1, 2, 3]]), r"line 3, field 'truth': these are not the bundles of session"),
    "no truth": (at(3, truth=[]), r"line 3, field 'truth': these are not the bundles of session"),
    "a session left out": (lambda rows: rows.pop(4), r"1 of 25 test sessions have no row, as session"),
    "a domain left out": (lambda rows: rows.__delitem__(slice(9, None)), r"16 of 25 test sessions have no row"),
    "a session twice": (lambda rows: rows.append(rows[6]), r"line 26, field 'session_id': .* duplicate of line 7"),
    "an unknown session": (at(2, session_id="x9"), r"line 2, field 'session_id': 'x9' is not a test session of one"),
    "an unknown domain": (at(1, domain="food"), r"line 1, field 'domain': 'food' is not one of one, two"),
    "a position too high": (at(1, predicted=[[1, 99]]), r"line 1, field 'predicted': 99 is not a position from 1 to"),
    "a position from 0": (at(1, predicted=[[0, 1]]), r"line 1, field 'predicted': 0 is not a position from 1"),
    "a position that is no number": (at(1, predicted=[["1", 2]]), r"line 1, field 'predicted': '1' is not a position"),
    "a truth value": (at(1, predicted=[[True, 2]]), r"line 1, field 'predicted': True is not a position"),
    "one bundle, not a list": (at(1, predicted=[1, 2]), r"line 1, field 'predicted': is not a list of bundles"),
    "an empty bundle": (at(1, predicted=[[]]), r"line 1, field 'predicted': is not a list of bundles"),
    "products in another order": (
        lambda rows: rows[5]["items"].reverse(),
        r"line 6, field 'items': these are not the products of session",
    ),
    "a number for an id": (at(8, session_id=17), r"line 8, field 'session_id': 17 is not a text"),
    "a field left out": (lambda rows: rows[1].pop("items"), r"line 2, field 'items': is missing"),
    "nothing": (lambda rows: rows.clear(), r"p\.jsonl: the file has no rows"),
}


@pytest.mark.parametrize(("change", "words"), FAULTS.values(), ids=FAULTS)
def test_a_wrong_file_is_named_with_its_line(change, words, domains, tmp_path):
    rows = copy.deepcopy(rows_of(domains, guesses(domains)))
    score_files([write(tmp_path / "p.jsonl", rows)], domains)  # it is right
    change(rows)
    with pytest.raises(InputError, match=words) as error:
        score_files([write(tmp_path / "p.jsonl", rows)], domains)
    assert str(error.value).startswith(str(tmp_path / "p.jsonl"))


def test_lines_are_counted_with_the_blank_ones(domains, tmp_path):
    rows = rows_of(domains, guesses(domains))
    rows[1]["predicted"] = [[99]]
    path = write(tmp_path / "p.jsonl", rows)
    path.write_text("\n\n" + path.read_text())
    with pytest.raises(InputError, match="line 4"):
        score_files([path], domains)


def test_without_data_the_seeds_must_answer_the_same(domains, tmp_path):
    first = write(tmp_path / "a.jsonl", rows_of(domains, guesses(domains)))
    rows = rows_of(domains, guesses(domains, 1))
    rows[0]["truth"] = [[1, 2, 3]]
    with pytest.raises(InputError, match=r"b\.jsonl, line 1, field 'truth'"):
        score_files([first, write(tmp_path / "b.jsonl", rows)], {})


def demo_config(path, **data):
    config = score_config.get_config()
    config.score.predictions = str(path)
    config.data.update(**{"source": "demo", "domains": ("demo",)} | data)
    return config


@pytest.fixture
def demo_file(tmp_path):
    demo = {"demo": load_domain("demo", "", "demo")}
    return write(tmp_path / "p.jsonl", rows_of(demo, {"demo": [s.bundles for s in demo["demo"].splits["test"]]}))


def test_what_the_job_prints(demo_file, capsys, monkeypatch):
    digest = load_domain("demo", "", "demo").digest
    score_predictions(demo_config(demo_file), "")
    text = capsys.readouterr().out
    assert f"demo: not the leaderboard's data, {digest}" in text and "1.000 [1.000, 1.000]" in text
    assert "SYSTEM" not in text
    monkeypatch.setitem(OFFICIAL, "demo", digest)
    score_predictions(demo_config(demo_file), "")
    text = capsys.readouterr().out
    assert f"demo: the leaderboard's data, {digest}" in text
    row = "| SYSTEM | — | — | — | — | — | — | 1.000 [1.000, 1.000] | 1.000 | 1.000 | 1 | COMMIT | HARDWARE | MINUTES |"
    assert row in text
    score_predictions(demo_config(demo_file, source=""), "")
    text = capsys.readouterr().out
    assert "demo: no data was read; the truth is what the file says it is" in text and "SYSTEM" not in text


def test_a_file_has_to_be_named():
    with pytest.raises(InputError, match=r"config\.score\.predictions is empty"):
        score_predictions(score_config.get_config(), "")


def test_it_is_a_job_of_launch(launch, demo_file):
    data = ("--config.data.source=demo", "--config.data.domains=('demo',)")
    process = launch("score.py", f"--config.score.predictions={demo_file}", *data)
    assert process.returncode == 0 and "strict F1" in process.stdout, process.stderr[-3000:]


def test_the_page_has_the_digests_and_the_columns():
    text = DOCS.read_text(encoding="utf-8")
    assert all(digest in text for digest in OFFICIAL.values())
    assert f"| {' | '.join(HEADINGS)} |" in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and line.count("|") == len(HEADINGS) + 1]
    assert len(rows) > 5 and markdown_row([], 3).count("|") == len(HEADINGS) + 1


@pytest.mark.real
def test_the_digests_are_those_of_the_data(bundlerec):
    assert {name: load_domain("bundlerec", str(bundlerec), name).digest for name in OFFICIAL} == OFFICIAL
