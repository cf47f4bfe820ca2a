"""Students of the families that chat in `[INST] … [/INST]` train, and write or judge what they were trained on."""

import numpy as np
import pytest
from instruct_models import FAMILIES, SPACES, write_model

from configs.base import base
from kdjax.data import load_domain
from kdjax.decoding import Constraint, Generator, StateReader
from kdjax.prompting import ANSWER_MARKER, Demonstration, ProductForm, parse_answer, training_example
from kdjax.student import LoraConfig, load_student
from kdjax.study import examples as asking
from kdjax.study.telling import Teller
from kdjax.training import Training, TrainSettings

SETTINGS = TrainSettings(
    seed=0,
    max_steps=40,
    batch_size=1,
    micro_batch_tokens=512,
    learning_rate=3e-2,
    warmup_ratio=0.1,
    weight_decay=0.0,
    max_grad_norm=1.0,
    checkpoint_every=1000,
    dropout=0.0,
)


@pytest.fixture(scope="module")
def sessions():
    return load_domain("demo", "", "demo").splits["train"]


@pytest.fixture(scope="module", params=zip(FAMILIES, (*SPACES, *SPACES), strict=True), ids=" ".join)
def student(request, tmp_path_factory):
    family, spaces = request.param
    folder = write_model(tmp_path_factory.mktemp("inst") / "model", family, spaces)
    return load_student(
        str(folder), lora=LoraConfig(r=8, lora_alpha=16, target_modules=("q_proj", "v_proj", "down_proj"))
    )


def test_a_student_writes_the_very_tokens_that_it_was_trained_on(student, sessions, tmp_path):
    """The constraint never has to step in."""
    session = sessions[0]
    example = training_example(student.tokenizer, "demo", session)
    training = Training(student, [[example] * SETTINGS.max_steps], SETTINGS, tmp_path)
    training.run()
    generator = Generator(student, max_new_tokens=32, rows_per_device=1, buckets=1)
    form = Constraint("items", padding=student.tokenizer.answer_padding)
    [completion] = generator(training.best, [example], [len(session)], form)
    assert completion.token_ids == example.completion_ids
    assert completion.finished and not completion.rescued
    answer = parse_answer(completion.text, len(session))
    assert answer.valid and {*answer.bundles} == {tuple(i + 1 for i in bundle) for bundle in session.bundles}


def test_products_of_a_judge_are_read_where_they_are(student, sessions):
    """States of a product depend on what comes before it: equal prompts up to a title give equal states of it."""
    tell = Teller(student.tokenizer, ProductForm(("title", "category")), {"demo": "Rules:\n1. No cables."})
    examples = [tell.prompt("demo", session) for session in sessions[:3]]
    states = StateReader(student, 1, 4000)(student.adapter, examples)
    for session, read, example in zip(sessions, states, examples, strict=False):
        assert read.shape[:2] == (len(session), 2) and np.isfinite(read).all()
        told = [student.tokenizer.decode(example.prompt_ids[first:end]).strip() for (first, end), _ in example.products]
        assert told == list(session.titles)


@pytest.mark.parametrize("mode", ["json", "items"])
@pytest.mark.parametrize("thoughts", [False, True], ids=["answers", "thoughts"])
def test_the_check_of_a_run_passes(student, sessions, mode, thoughts):
    config = base("x")
    config.student.answer = "text"
    config.eval.constraint = mode
    config.knowledge.formats = ("thoughts",) if thoughts else ()
    form = asking.constraint(config, student.tokenizer)
    assert form == Constraint(mode, ANSWER_MARKER if thoughts else "", student.tokenizer.answer_padding)
    thought = "Both make coffee." if thoughts else ""
    shown = [Demonstration(sessions[-1])]
    told = [training_example(student.tokenizer, "demo", s, "", thought, demonstrations=shown) for s in sessions[:20]]
    asking.check_targets(config, student.tokenizer, told)
