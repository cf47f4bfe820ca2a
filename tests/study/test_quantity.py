"""Fewer training sessions: which ones, for what, and how hard they are."""

import json
from dataclasses import replace

import numpy as np
import pytest

from configs.base import base
from configs.sft_text import writes
from kdjax.data import load_domain
from kdjax.knowledge import STRATEGIES
from kdjax.prompting import training_example
from kdjax.reporting import RunLog
from kdjax.student import load_student
from kdjax.study.difficulty import difficulty
from kdjax.study.distil import drawn
from kdjax.study.quantity import sampled
from kdjax.training import Parallel


@pytest.fixture(scope="module")
def domains():
    return {"demo": load_domain("demo", "", "demo")}


def ids(domains):
    return [session.id for session in domains["demo"].splits["train"]]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_samples_are_nested_and_leave_the_other_splits_alone(domains, strategy):
    config, before = base("x"), []
    hard = {"demo": {id: float(n) for n, id in enumerate(ids(domains))}}
    for ratio in (0.1, 0.25, 0.5, 1.0):
        config.quantity.update(ratio=ratio, strategy=strategy)
        found = sampled(config, domains, "training", hard)
        assert set(before) <= set(ids(found)) and len(ids(found)) == round(ratio * len(ids(domains)))
        assert all(found["demo"].splits[part] is domains["demo"].splits[part] for part in ("validation", "test"))
        before = ids(found)


def test_a_sample_applies_to_what_it_is_for(domains):
    config = base("x")
    config.quantity.update(ratio=0.5, applies_to=("knowledge",))
    assert sampled(config, domains, "training") == domains
    assert len(ids(sampled(config, domains, "knowledge"))) == len(ids(domains)) // 2


def test_a_sample_yields_its_share_of_the_knowledge(domains):
    """The teacher is asked about those in the sample of the sessions that it would be asked about without; nested, as samples are."""
    config, before = base("x"), set()
    config.knowledge.update(reflections=80, thoughts=0)
    for ratio in (0.1, 0.25, 0.5, 1.0):
        config.quantity.ratio = ratio
        shown = sampled(config, domains, "knowledge")["demo"]
        asked = {session.id for session in drawn(config, shown, domains["demo"], "rules")}
        assert before <= asked <= set(ids({"demo": shown}))
        assert abs(len(asked) - 80 * ratio) < 12
        before = asked
    assert len(before) == 80
    assert len(drawn(config, domains["demo"], domains["demo"], "thoughts")) == len(ids(domains))
    config.knowledge.reflections = 1
    few = sampled_to(domains["demo"], 3)
    assert len(drawn(config, few, domains["demo"], "rules")) == 1  # though the one that was drawn is not among them


def test_difficulty_is_the_mean_loss_of_the_answers_tokens(domains, tmp_path):
    """By the definition: each session alone, through the student's logits."""
    student, config = load_student("tiny-random"), writes(base("x"))
    config.train.micro_batch_tokens = 900
    few = {"demo": sampled_to(domains["demo"], 5)}
    with RunLog(tmp_path) as log:
        found = difficulty(student, Parallel(), config, few, log)["demo"]
    assert list(found) == ids(few)
    for session in few["demo"].splits["train"]:
        example = training_example(student.tokenizer, "demo", session)
        logits = np.asarray(student.logits(np.asarray([example.prompt_ids + example.completion_ids])))[0]
        start = len(example.prompt_ids) - 1
        rows = logits[start : start + len(example.completion_ids)]
        logs = (
            rows
            - np.log(np.exp(rows - rows.max(-1, keepdims=True)).sum(-1, keepdims=True))
            - rows.max(-1, keepdims=True)
        )
        expected = -logs[np.arange(len(rows)), list(example.completion_ids)].mean()
        assert found[session.id] == pytest.approx(expected, rel=1e-4)


def sampled_to(domain, count):
    return replace(domain, splits={**domain.splits, "train": domain.splits["train"][:count]})


def test_a_run_learns_from_the_hardest_tenth_and_shows_no_other(launch, tmp_path):
    """16 of 160 sessions: knowledge, examples and demonstrations all come from them."""
    flags = [
        "--config.quantity.ratio=0.1",
        "--config.quantity.strategy=difficulty",
        "--config.prompting.demonstrations=1",
    ]
    process = launch("sft_rules.py:smoke", f"--workdir={tmp_path / 'run'}", *flags, "--config.train.max_steps=1")
    assert process.returncode == 0, process.stderr[-3000:]
    assert "training sessions, difficulty 10%: knowledge from 16 of 160 demo" in process.stdout
    chosen = json.loads((tmp_path / "run" / "selection.json").read_text())
    hard = json.loads((tmp_path / "run" / "difficulty.json").read_text())["demo"]
    assert set(chosen["training"]["demo"]) == set(sorted(hard, key=hard.get)[-16:]) == set(chosen["knowledge"]["demo"])
    examples = [json.loads(line) for line in (tmp_path / "run" / "examples" / "train.jsonl").read_text().splitlines()]
    assert {row["session_id"] for row in examples} == set(chosen["training"]["demo"])
    assert all(row["prompt"].count("<|im_start|>user") == 2 for row in examples)
    for line in (tmp_path / "run" / "knowledge" / "demo" / "rules.jsonl").read_text().splitlines():
        assert set(json.loads(line)["sessions"]) <= set(chosen["knowledge"]["demo"])
    shown = [
        json.loads(line)["id"]
        for line in (tmp_path / "run" / "adapter" / "demonstrations.jsonl").read_text().splitlines()
    ]
    assert set(shown) == set(chosen["knowledge"]["demo"])
