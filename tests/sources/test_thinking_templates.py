"""Chat templates of reasoning models: they are told not to think, unless asked to, by teacher and student alike."""

import json

import pytest
from tokenizer_folders import CHATML, TEMPLATES, write_byte_level

from kdjax.data import Session
from kdjax.prompting import training_example
from kdjax.prompting.thinking import opens_thinking
from kdjax.sources.tokenizer import read_tokenizer
from kdjax.teacher import Call
from kdjax.teacher.calls import make_request

MESSAGES = [{"role": "system", "content": "Group."}, {"role": "user", "content": "1. Café"}]
OPENS = CHATML.replace("assistant\\n' }}\n{%- endif", "assistant\\n<think>\\n' }}\n{%- endif")
QWEN3 = CHATML + "{%- if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}"
QWEN3 += "{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
GLM = CHATML + "{% if add_generation_prompt and not enable_thinking %}{{ '<think></think>' }}{% endif %}"
SWITCHED = {"Qwen3": QWEN3, "GLM": GLM}
IDENTITY = {"kind": "hf", "model": "m", "dtype": "float32"}


def folder(tmp_path, template):
    return write_byte_level(tmp_path / "tokenizer", chat_template=template)


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("template", SWITCHED.values(), ids=SWITCHED)
def test_the_switch_renders_what_transformers_renders(template, thinking, tmp_path):
    where = folder(tmp_path, template)
    theirs = pytest.importorskip("transformers").PreTrainedTokenizerFast.from_pretrained(where)
    expected = theirs.apply_chat_template(
        MESSAGES, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
    )
    assert read_tokenizer(where).render(MESSAGES, thinking=thinking) == expected
    assert ("</think>" in expected) is not thinking


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_without_the_switch_has_the_same_call_either_way(template, tmp_path):
    tokenizer = read_tokenizer(folder(tmp_path, template))
    call = Call((("user", "hi"),), 8)
    plain, thinking = (make_request(IDENTITY, call, tokenizer, thinking=on) for on in (False, True))
    assert plain == thinking
    switched = read_tokenizer(folder(tmp_path / "switched", QWEN3))
    assert make_request(IDENTITY, call, switched).key != make_request(IDENTITY, call, switched, thinking=True).key


def test_a_system_message_that_is_merged_keeps_the_switch(tmp_path):
    template = TEMPLATES["no system"] + "{% if not enable_thinking %}no thinking{% endif %}"
    tokenizer = read_tokenizer(folder(tmp_path, template))
    assert tokenizer.render(MESSAGES).endswith("no thinking")
    assert not tokenizer.render(MESSAGES, thinking=True).endswith("no thinking")


def test_a_template_that_opens_thinking_is_seen_at_the_end_of_its_prompt(tmp_path):
    opening, switched = (read_tokenizer(folder(tmp_path / name, text)) for name, text in (("a", OPENS), ("b", QWEN3)))
    assert opens_thinking(opening.render(MESSAGES)) and not opens_thinking(switched.render(MESSAGES))


def test_a_student_is_trained_and_asked_behind_the_same_words(tmp_path):
    tokenizer = read_tokenizer(folder(tmp_path, QWEN3))
    session = Session("s", ("a", "b"), ("Cable", "Screen"), ((), ()), ((0, 1),), ("",))
    example = training_example(tokenizer, "demo", session)
    assert example.prompt.endswith("<think>\n\n</think>\n\n") and example.completion.startswith("[[1,2]]")
    assert json.dumps("<think>") not in example.completion
