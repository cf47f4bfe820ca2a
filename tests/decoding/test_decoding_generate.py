"""Ten prompts of two domains, decoded four rows at a time in two buckets: full batches and others, long prompts and short ones."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from decoding_helpers import END, PROMPTS, STEPS, write

from kdjax.decoding import Constraint, Generator, compile_automaton, session_language
from kdjax.decoding.batches import lay_out_prompts
from kdjax.decoding.slots import Programs
from kdjax.errors import InputError
from kdjax.prompting import ANSWER_MARKER
from kdjax.training.batches import by_domain, common_prefix
from kdjax.training.clock import compile_seconds

FREE = Constraint("none")
SIZES = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]


def next_logits(student, rows: list[list[int]]) -> np.ndarray:
    """[batch, vocab] behind each prompt and what was written so far, the whole row computed anew."""
    whole = [[*prompt.prompt_ids, *row] for prompt, row in zip(PROMPTS, rows, strict=True)]
    lengths = np.array([len(row) for row in whole])
    tokens = np.zeros((len(whole), max(len(prompt) for prompt in PROMPTS) + STEPS), int)
    for row, ids in zip(tokens, whole, strict=True):
        row[: len(ids)] = ids
    return np.asarray(student.logits(tokens, lengths))[np.arange(len(whole)), lengths - 1]


@pytest.fixture(scope="module")
def expected(student) -> list[tuple[int, ...]]:
    """The likeliest token again and again, without a cache; cut behind the end of the turn."""
    rows: list[list[int]] = [[] for _ in PROMPTS]
    for _ in range(STEPS):
        for row, token in zip(rows, next_logits(student, rows).argmax(axis=-1).tolist(), strict=True):
            row.append(token)
    return [tuple(row[: row.index(END) + 1] if END in row else row) for row in rows]


@pytest.fixture(scope="module")
def generator(student) -> Generator:
    return Generator(student, max_new_tokens=STEPS, rows_per_device=4, buckets=2)


@pytest.fixture(scope="module")
def completions(student, generator):
    return generator(student.adapter, PROMPTS, SIZES, FREE)


def test_free_answers_are_those_of_the_naive_loop(completions, expected):
    lengths = {len(ids) for ids in expected}
    assert 1 in lengths and STEPS in lengths and any(1 < length < STEPS for length in lengths)  # else little is shown
    assert [completion.token_ids for completion in completions] == expected


def test_an_answer_is_finished_if_it_ended_by_itself(student, completions):
    for completion in completions:
        assert completion.finished == (completion.token_ids[-1] == END)
        assert completion.finished or len(completion.token_ids) == STEPS
        assert completion.text == student.tokenizer.decode(completion.token_ids)


def test_free_answers_are_those_of_transformers(student, expected, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)
    student.save_merged(tmp_path)
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    for prompt, ids in zip(PROMPTS, expected, strict=True):
        row = torch.tensor([prompt.prompt_ids])
        whole = model.generate(
            row,
            attention_mask=torch.ones_like(row),
            max_new_tokens=STEPS,
            do_sample=False,
            eos_token_id=[END],
            pad_token_id=END,
        )
        assert tuple(whole[0, row.shape[1] :].tolist()) == ids


def test_answers_stand_in_the_order_of_the_prompts_and_nothing_is_compiled_anew(student, generator, completions):
    before, heard = compile_seconds(), []
    again = generator(student.adapter, PROMPTS[::-1], SIZES, FREE, on_batch=heard.append)
    assert again == completions[::-1]
    assert sum(heard) == len(PROMPTS) and max(heard) <= 4
    other = generator(jax.tree.map(np.zeros_like, student.adapter), PROMPTS, SIZES, FREE)
    assert other != completions  # it is the given adapter that answers
    assert compile_seconds() == before


def test_each_program_is_traced_once_for_a_bucket(student, monkeypatch):
    """Prompts of the same lengths that say something else find all programs ready."""
    traced = []

    def counted(name):
        program = getattr(Programs, name)

        def count(self, *arguments):
            traced.append(name)
            return program(self, *arguments)

        monkeypatch.setattr(Programs, name, count)

    for name in ("read_prefix", "admit", "advance"):
        counted(name)
    generator = Generator(student, max_new_tokens=STEPS, rows_per_device=4, buckets=2)
    generator(student.adapter, PROMPTS, SIZES, FREE)
    shared = {name: common_prefix(members) for name, members in by_domain(PROMPTS).items()}
    buckets = lay_out_prompts(PROMPTS, shared, 2, 4, 1, END, one_row=True)
    shapes = {(len(shared[bucket.domain]), bucket.slots, bucket.batches[0].tokens.shape) for bucket in buckets}
    assert traced.count("admit") == len(shapes) == 4
    assert len(shapes) <= traced.count("advance") <= 2 * len(shapes)  # a second one for the last few answers
    before = list(traced)
    others = []
    for prompt in PROMPTS:
        kept = len(shared[prompt.domain]) + 1  # they still differ behind what is shared
        ids = (*prompt.prompt_ids[:kept], *(1 + token % 50 for token in prompt.prompt_ids[kept:]))
        others.append(replace(prompt, prompt_ids=ids))
    assert others != PROMPTS
    generator(student.adapter, others, SIZES[::-1], FREE)
    assert traced == before


@pytest.mark.parametrize(
    "constraint", [Constraint("items"), Constraint("json", ANSWER_MARKER)], ids=["items", "json after text"]
)
def test_constrained_answers_are_those_of_the_naive_loop(student, constraint):
    """Each row under the language of its own session."""
    generator = Generator(student, max_new_tokens=STEPS, rows_per_device=7, buckets=1)
    found = generator(student.adapter, PROMPTS, SIZES, constraint)
    languages = [session_language(constraint.mode, n, constraint.marker) for n in SIZES]
    automaton, starts = compile_automaton(languages, student.tokenizer, student.config.vocab_size, STEPS)
    rows = write(automaton, starts, STEPS, END, lambda rows: next_logits(student, rows))
    assert [list(completion.token_ids) for completion in found] == rows
    assert all(completion.finished for completion in found)


def test_four_devices_give_the_answers_of_one(model_folder, completions):
    environment = os.environ | {
        # Unoptimised, it compiles in half the time.
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    script = Path(__file__).with_name("generate_on_devices.py")
    told = subprocess.run(
        [sys.executable, script, model_folder], check=True, env=environment, capture_output=True, text=True
    )
    assert json.loads(told.stdout) == [list(completion.token_ids) for completion in completions]


def test_a_budget_too_small_for_an_answer_is_an_error(student):
    generator = Generator(student, max_new_tokens=7, rows_per_device=4, buckets=1)
    with pytest.raises(InputError, match="eval.max_new_tokens=7: the shortest answer takes 8 tokens"):
        generator(student.adapter, PROMPTS, SIZES, Constraint("items"))


def test_no_prompts_no_answers(student, generator):
    assert generator(student.adapter, [], [], FREE) == []


def test_forced_tokens_are_not_waited_for(student, generator):
    """Behind the first product of a bundle stands a comma, and behind the last bundle the end: neither costs a call."""
    [prompt], size = PROMPTS[:1], SIZES[4:5]
    before = generator.calls
    [completion] = generator(student.adapter, [prompt], size, Constraint("items"))
    joined, calls = generator.joined, generator.calls - before
    assert completion.finished and joined >= 1
    # The first token comes with the prompt, and nobody reads the last ones.
    assert len(completion.token_ids) - joined - 3 <= calls <= len(completion.token_ids) - joined - 1
    before = generator.calls
    [completion] = generator(student.adapter, [prompt], size, FREE)
    assert generator.calls - before == len(completion.token_ids) - 1 and generator.joined == joined


def test_a_slot_that_is_free_goes_to_the_next_prompt(student, completions):
    """Ten prompts in four slots: far fewer calls than if each four waited for their longest answer."""
    generator = Generator(student, max_new_tokens=STEPS, rows_per_device=4, buckets=1)
    prompts = [replace(prompt, domain="a") for prompt in PROMPTS[:7]] * 3
    again = generator(student.adapter, prompts, SIZES[:7] * 3, FREE)
    assert again == completions[:7] * 3
    lengths = [len(completion.token_ids) for completion in again]
    waited = sum(max(lengths[start : start + 4]) - 1 for start in range(0, len(lengths), 4))
    assert generator.calls < waited
