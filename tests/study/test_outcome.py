"""From finished runs to a study's rows, with answers written by hand."""

import json

import numpy as np
import pytest

from configs.base import cell, study
from kdjax.data import load_domain
from kdjax.errors import InputError
from kdjax.evaluation import holm, score
from kdjax.study.grid import grid
from kdjax.study.outcome import POOLED, outcome
from kdjax.study.scores import FROZEN
from kdjax.study.studies import cards_of, samples, uses


def answer(run, domain, say, name="predictions.jsonl"):
    """Write what `say(session, number)` names for each test session, 1-based."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / name).open("a") as file:
        for number, session in enumerate(domain.splits["test"]):
            row = {
                "domain": domain.name,
                "session_id": session.id,
                "predicted": say(session, number),
                "prompt_tokens": 10 if domain.name == "demo" else 30,
                "rescued": number == 0,
            }
            file.write(json.dumps(row) + "\n")


def right(session, number):
    return [[item + 1 for item in bundle] for bundle in session.bundles]


def whole(session, number):
    return [list(range(1, len(session) + 1))]


def mixed(seed):
    return lambda session, number: (right if (number + seed) % 3 else whole)(session, number)


def of(rows, name, domain):
    [row] = [row for row in rows if (row["name"], row["domain"]) == (name, domain)]
    return row


@pytest.fixture
def cells(tmp_path):
    domain = load_domain("demo", "", "demo")
    found = grid(
        study(
            "x", "?", (cell("whole"), cell("mixed", "whole", train__epochs=1), cell("right", "whole", train__epochs=3))
        ),
        tmp_path,
    )
    for one, say in zip(found, (lambda _: whole, mixed, lambda _: right), strict=True):
        for run in one.runs:
            answer(run, domain, say(run.seed))
    for run in found[0].runs:
        answer(run, domain, (right, right, whole)[run.seed], "predictions_before.jsonl")
    return found, domain


def test_a_row_is_the_cells_score_over_its_seeds(cells):
    found, domain = cells
    rows = outcome(found, {"demo": domain}, 0)
    truth = [session.bundles for session in domain.splits["test"]]
    predicted = [[tuple(n - 1 for n in b) for b in whole(s, 0)] for s in domain.splits["test"]]
    expected = score(predicted, truth)
    row = of(rows, "whole", "demo")
    assert row["f1"] == pytest.approx(expected["strict"]["f1"]) and row["sd"] == 0 and row["seeds"] == 3
    assert row["paper_recall"] == pytest.approx(expected["paper"]["recall"]) and row["unanswered"] == 0
    assert row["against"] is None and row["prompt_tokens"] == 10 and row["rescued"] == 1
    seeds = [
        score(
            [[tuple(n - 1 for n in b) for b in mixed(seed)(s, i)] for i, s in enumerate(domain.splits["test"])], truth
        )
        for seed in range(3)
    ]
    f1 = [one["strict"]["f1"] for one in seeds]
    assert of(rows, "mixed", "demo")["f1"] == pytest.approx(np.mean(f1), abs=0.01)
    assert of(rows, "mixed", "demo")["sd"] == pytest.approx(np.std(f1, ddof=1))
    assert of(rows, "right", "demo")["f1"] == 1.0
    frozen, wrong = of(rows, FROZEN, "demo"), expected["strict"]["f1"]  # right with two of three seeds
    assert frozen["seeds"] == 3 and frozen["sd"] == pytest.approx(np.std([1, 1, wrong], ddof=1))


def test_differences_are_to_the_reference_and_corrected_together(cells):
    found, domain = cells
    rows = outcome(found, {"demo": domain}, 0)
    better, best = of(rows, "mixed", "demo"), of(rows, "right", "demo")
    base = of(rows, "whole", "demo")["f1"]
    assert best["difference"] == pytest.approx(1 - base) and best["low"] > 0 and best["against"] == "whole"
    assert 0 < better["difference"] < best["difference"] and better["low"] < better["difference"] < better["high"]
    assert [better["holm"], best["holm"]] == holm([better["p"], best["p"]]) and best["holm"] < 0.05


def test_baselines_stand_beside_and_domains_are_pooled(tmp_path):
    from dataclasses import replace

    one = load_domain("demo", "", "demo")
    other = replace(one, name="other", splits={**one.splits, "test": one.splits["test"][:10]})
    config = study("x", "?", (cell("right"), cell("one alone", "right", data__domains=("demo",))))
    config.data.domains = ("demo", "other")
    found = grid(config, tmp_path)
    for run in found[0].runs:
        answer(run, one, right)
        answer(run, other, whole)
    for run in found[1].runs:
        answer(run, one, right)
    rows = outcome(found, {"demo": one, "other": other}, 0)
    assert {row["name"] for row in rows if row["domain"] == POOLED} >= {"right", "whole session", "pair classifier"}
    assert not any(row["name"] == "one alone" for row in rows if row["domain"] != "demo")
    assert [of(rows, "right", name)["prompt_tokens"] for name in ("demo", "other")] == [10, 30]
    assert of(rows, "right", POOLED)["n"] == len(one.splits["test"]) + 10
    assert of(rows, "one alone", "demo")["difference"] == 0 and of(rows, "one alone", "demo")["p"] == 1
    assert (
        of(rows, "right", "other")["f1"] == of(rows, "whole session", "other")["f1"] < of(rows, "right", POOLED)["f1"]
    )


def test_a_run_without_its_predictions_is_an_error(cells):
    found, domain = cells
    path = found[1].runs[0].folder / "predictions.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:-2]) + "\n")
    with pytest.raises(InputError, match="2 test sessions of demo have no prediction"):
        outcome(found, {"demo": domain}, 0)


def test_samples_are_cells_that_differ_in_nothing_else(tmp_path):
    cells = (cell("all"), cell("half", quantity__ratio=0.5, quantity__strategy="length"), cell("other", lora__r=2))
    assert samples(grid(study("x", "?", cells), tmp_path)) == {"all": (1.0, "random"), "half": (0.5, "length")}
    assert samples(grid(study("x", "?", cells[::2]), tmp_path)) == {}


def test_uses_are_cells_that_differ_in_format_and_use_alone(tmp_path):
    rules, icl = {"knowledge__formats": ("rules",)}, {"train__max_steps": 0, "prompting__demonstrations": 1}
    cells = (
        cell("plain", knowledge__formats=()),
        cell("rules", **rules, teacher__kind="annotations"),
        cell("shown", **rules, **icl),
        cell("other", **rules, lora__r=2),
    )
    assert uses(grid(study("x", "?", cells), tmp_path)) == {
        "plain": ("none", "fine-tuned, pairs"),
        "rules": ("rules, annotations", "fine-tuned, pairs"),
        "shown": ("rules", "untrained, pairs, 1 shown"),
    }
    again = (
        *cells[:3],
        cell("written", student__answer="text", eval__orders=1),
        cell("again", **rules, **icl, eval__orders=1),
    )
    assert {*uses(grid(study("x", "?", again), tmp_path))} == {"plain", "rules", "written"}  # two would share a place
    assert uses(grid(study("x", "?", cells[:2]), tmp_path)) == {}  # one use: there is no map of it


def test_cards_of_all_runs_are_there_once(cells):
    found, _ = cells
    for run, checks in zip(found[0].runs, ({}, {"effect": 0.25}, {"effect": -0.75}), strict=True):
        folder = run.folder / "knowledge" / "demo"
        folder.mkdir(parents=True)
        of_run = {
            "sessions": ["s", str(run.seed)],
            "calls": [f"call {run.seed}"],
            "checks": checks,
            "support": 5 - run.seed,
        }
        rows = [of_run | {"text": "same", "id": "both"}, of_run | {"text": "same", "id": str(run.seed)}]
        (folder / "rules.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        dropped = of_run | {"text": "same", "id": "2", "checks": {"effect": -0.5 * run.seed}}
        (folder / "rules_dropped.jsonl").write_text(json.dumps(dropped) + "\n" if run.seed < 2 else "")
    (dropped,) = cards_of(found)["demo/rules_dropped"]
    cards = cards_of(found)["demo/rules"]
    assert dropped["checks"] == {"effect": pytest.approx((-0.75 - 0.5 - 0.0) / 3), "runs": 2}
    assert cards[3]["checks"] == {"effect": dropped["checks"]["effect"], "runs": 1}  # kept by one run of three
    assert [card["id"] for card in cards] == ["both", "0", "1", "2"]  # thoughts of two sessions may read alike
    assert cards[0]["sessions"] == ["s", "0", "1", "2"] and cards[0]["calls"] == ["call 0", "call 1", "call 2"]
    assert (
        cards[0]["checks"] == {"effect": -0.25, "runs": 3} and cards[0]["support"] == 5
    )  # measured in two of the runs
    assert cards[1]["checks"] == {"runs": 1}
