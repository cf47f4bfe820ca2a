"""The job of a student that judges pairs, through launch.py: smoke runs that tell the products in two orders."""

import json
import os
import re
import signal

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from study_helpers import HARD

from kdjax import Bundler
from kdjax.data import load_domain
from kdjax.decoding import NoBundle, likely_bundles, sure_answer
from kdjax.errors import InputError
from kdjax.study.scores import square

JUDGING = ["--config.eval.orders=2", *HARD]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def judging(launch, tmp_path_factory):
    """The workdir of a finished run of a student that judges pairs in two orders, and what it printed."""
    workdir = tmp_path_factory.mktemp("runs") / "pairs"
    process = launch("sft_rules.py:smoke", f"--workdir={workdir}", *JUDGING)
    assert process.returncode == 0, process.stderr[-3000:]
    return workdir, process.stdout


def test_pairs_are_judged_and_the_head_stays_with_the_adapter(judging):
    workdir, printed = judging
    assert re.search(r"\n2\. [^⟦\n]+⟦[\d, ]*⟧\n3\. ", printed)  # behind a product those that belong with it
    predictions = rows(workdir / "predictions.jsonl")
    assert all(row["valid"] and row["completion_tokens"] == 0 for row in predictions)
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics["train"]["target_tokens"] > 4 * 8  # pairs, of four steps of eight sessions
    assert "frozen student" not in metrics["test"]["baselines"]  # it stands before
    names = load_file(workdir / "adapter" / "adapter_model.safetensors")
    assert names and not any("layers.1." in name for name in names)  # not computed, not adapted
    frozen, trained = (load_file(folder / "pair_head.safetensors") for folder in (workdir, workdir / "adapter"))
    assert frozen.keys() == trained.keys() and all((frozen[name] != trained[name]).any() for name in frozen)
    assert "not trained to write" in (workdir / "adapter" / "README.md").read_text()


def test_a_shop_gets_what_the_run_predicted(judging, launch, tmp_path):
    """The test sessions as new ones, with the adapter alone: the same layers, head, orders and product lines."""
    workdir, _ = judging
    test = {session.id: session for session in load_domain("demo", "", "demo").splits["test"]}
    predictions = rows(workdir / "predictions.jsonl")
    sessions = [test[row["session_id"]] for row in predictions]
    items = {
        item: {"id": item, "title": title, "categories": [list(path) for path in paths]}
        for s in sessions
        for item, title, paths in zip(s.items, s.titles, s.categories, strict=True)
    }
    files = {"items": items.values(), "sessions": [{"id": s.id, "items": list(s.items)} for s in sessions]}
    for name, content in files.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)))
    flags = [
        f"--config.student.adapter={workdir / 'adapter'}",
        f"--config.generate.sessions_file={tmp_path / 'sessions.jsonl'}",
        f"--config.generate.items_file={tmp_path / 'items.jsonl'}",
    ]
    process = launch("generate.py:smoke", f"--workdir={tmp_path / 'shop'}", *flags)
    assert process.returncode == 0, process.stderr[-3000:]
    assert "8 sessions, " in process.stdout
    calibrate = NoBundle(**json.loads((workdir / "adapter" / "kdjax.json").read_text())["no_bundle"])
    assert calibrate.sessions == 40
    for row, predicted, session in zip(rows(tmp_path / "shop" / "bundles.jsonl"), predictions, sessions, strict=True):
        beliefs = calibrate(likely_bundles(square(predicted["pair_log_odds"], len(session))))
        named = {frozenset(session.items[place] for place in bundle) for bundle in sure_answer(beliefs)}
        assert {frozenset(bundle["items"]) for bundle in row["bundles"]} == named
        assert row["no_bundle"] == pytest.approx(beliefs[()], abs=2e-4)


def test_python_gives_what_the_command_line_gives(judging, cache, monkeypatch):
    """Alone, together, and in other company: the same probabilities, and none of it compiles another program."""
    monkeypatch.setenv("KDJAX_CACHE", str(cache))
    bundler = Bundler.load(judging[0] / "adapter")
    path = [["Kitchen", "Coffee"]]
    sessions = [[{"title": f"Nelo grinder {n}", "categories": path} for n in range(size)] for size in (3, 2, 8, 1, 0)]
    alone = [bundler.bundles(session) for session in sessions]
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **_: compiled.append(event))
    together = bundler.many(sessions)
    assert not [event for event in compiled if "backend_compile" in event]
    for one, other in zip(alone, together, strict=True):
        assert [bundle.products for bundle in one] == [bundle.products for bundle in other]
        assert [bundle.probability for bundle in one] == pytest.approx(
            [bundle.probability for bundle in other], abs=1e-3
        )
    assert alone[3] == alone[4] == []
    [answer] = bundler.answers(sessions[:1])
    assert answer.pairs.shape == (3, 3) and 0.0 <= answer.no_bundle <= 1.0
    assert bundler.bundles(sessions[0], min_probability=1.0) == []


def test_python_says_what_is_wrong_with_a_session(judging, cache, monkeypatch):
    monkeypatch.setenv("KDJAX_CACHE", str(cache))
    bundler = Bundler.load(judging[0] / "adapter")
    with pytest.raises(InputError, match=r"sessions\[1\]: product 2: its title is None"):
        bundler.many([[{"title": "x"}], [{"title": "x"}, {"name": "y"}]])
    with pytest.raises(InputError, match=r"domain='food': .* was trained on demo; name one of them"):
        bundler.bundles([{"title": "x"}, {"title": "y"}], domain="food")
    with pytest.raises(InputError, match=r"sessions\[0\]: \d+ tokens, and the student reads"):
        bundler.bundles([{"title": f"{n}", "categories": [["a", "b" * 500]]} for n in range(9)])
    with pytest.warns(UserWarning, match="2 of 2 products have no categories"):
        bundler.bundles([{"title": "x"}, {"title": "y"}])


def test_a_judging_adapter_is_evaluated_again_as_it_is(judging, launch, tmp_path):
    workdir, _ = judging
    flags = [*JUDGING, "--config.train.max_steps=0", f"--config.student.adapter={workdir / 'adapter'}"]
    process = launch("sft_rules.py:smoke", f"--workdir={tmp_path / 'run'}", *flags)
    assert process.returncode == 0, process.stderr[-3000:]
    assert rows(tmp_path / "run" / "predictions.jsonl") == rows(workdir / "predictions.jsonl")
    process = launch("sft_rules.py:smoke", f"--workdir={tmp_path / 'no'}", *flags, "--config.student.pair_layers=2")
    assert process.returncode and "behind 1 layers" in process.stderr and not (tmp_path / "no").exists()


def test_a_killed_judging_run_goes_on_to_the_same_adapter(judging, launch, tmp_path):
    workdir, flags = tmp_path / "killed", [*JUDGING, "--config.train.checkpoint_every=1"]
    with launch("sft_rules.py:smoke", f"--workdir={workdir}", *flags, start=True) as process:
        for line in process.stdout:
            if line.startswith("train step 1/4"):
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    continued = launch("sft_rules.py:smoke", f"--workdir={workdir}", *flags)
    assert continued.returncode == 0, continued.stderr[-3000:]
    for name in ("adapter_model.safetensors", "pair_head.safetensors"):
        whole, parts = (load_file(folder / "adapter" / name) for folder in (judging[0], workdir))
        assert whole.keys() == parts.keys() and all(np.array_equal(whole[key], parts[key]) for key in whole)


MESH = ["--config.parallel=mesh", "--config.mesh.fsdp=2", "--config.mesh.tensor=2"]


@pytest.mark.parametrize("flags", [[], MESH], ids=["pmap", "mesh"])
def test_four_devices_judge_as_one(judging, launch, tmp_path, monkeypatch, flags):
    """On a mesh broken off and gone on with, too: its state comes from a checkpoint."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    command = ["sft_rules.py:smoke", f"--workdir={tmp_path / 'run'}", *JUDGING, *flags]
    if flags:
        with launch(*command, start=True) as process:
            for line in process.stdout:
                if line.startswith("train step 1/4"):
                    os.kill(process.pid, signal.SIGTERM)
                    break
            process.stdout.read()
        assert process.returncode == 143
    process = launch(*command)
    assert process.returncode == 0, process.stderr[-3000:]
    assert not (flags and "train step 1/4" in process.stdout)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["devices"] == ["cpu cpu"] * 4
    for name in ("predictions_before.jsonl", "predictions.jsonl"):
        one, four = (rows(folder / name) for folder in (judging[0], tmp_path / "run"))
        assert [row["predicted"] for row in one] == [row["predicted"] for row in four]
    one, four = (
        [row["loss"] for row in rows(folder / "log.jsonl") if row["event"] == "step"]
        for folder in (judging[0], tmp_path / "run")
    )
    np.testing.assert_allclose(four, one, rtol=1e-3)


def test_more_layers_than_there_are_is_named_by_its_field(launch, tmp_path):
    process = launch("sft_rules.py:smoke", f"--workdir={tmp_path / 'run'}", "--config.student.pair_layers=3")
    assert process.returncode and "student.pair_layers=3, but the student has only 2 layers" in process.stderr
    assert not (tmp_path / "run").exists()


def test_only_rules_that_help_are_kept(launch, tmp_path):
    """With what each is worth: a head is fitted behind each prompt. Those of a run that was broken off are not tried again."""
    few = ["--config.knowledge.limit=3", "--config.eval.orders=1", "--config.train.max_steps=0"]
    command = ["sft_rules.py:smoke", f"--workdir={tmp_path / 'run'}", "--config.knowledge.keep=validated", *few]
    process = launch(*command)
    assert process.returncode == 0, process.stderr[-3000:]
    tried = [line for line in process.stdout.splitlines() if line.startswith("validation: ")]
    kept = rows(tmp_path / "run" / "knowledge" / "demo" / "rules.jsonl")
    effects = {line.split(": ", 2)[2]: float(line.split()[1]) for line in tried}
    assert len(tried) == 3 and {card["text"] for card in kept} == {
        text for text, effect in effects.items() if effect > 0
    }
    assert 0 < len(kept) < 3  # else nothing is seen here
    dropped = rows(tmp_path / "run" / "knowledge" / "demo" / "rules_dropped.jsonl")
    assert {card["text"] for card in (*kept, *dropped)} == {*effects}
    assert "demo/rules_dropped" in (tmp_path / "run" / "report.html").read_text()
    assert all(card["checks"]["effect"] == pytest.approx(effects[card["text"]], abs=1e-4) for card in (*kept, *dropped))
    (tmp_path / "run" / "metrics.json").unlink()
    again = launch(*command)
    assert again.returncode == 0 and bool(kept) is ("validation: " not in again.stdout), again.stdout
