"""Thinking that models write down, in every spelling, against answers that merely mention it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.prompting.answers import parse_answer
from kdjax.prompting.thinking import opens_thinking, spoken, without_thinking

BLOCKS = {  # what models write: (beginning, end)
    "Qwen, DeepSeek": ("<think>\n", "\n</think>\n\n"),
    "in one line": ("<think>", "</think>"),
    "capitals": ("<THINK>", "</Think>"),
    "with an attribute": ('<think time="3">', "</think>"),
    "prompted Claude": ("<thinking>", "</thinking>"),
    "EXAONE": ("<thought>\n", "\n</thought>\n\n"),
    "Reka": ("<reasoning>", "</reasoning>"),
    "scratchpad": ("<scratchpad>\n", "</scratchpad>\n"),
    "Seed-OSS": ("<seed:think>", "</seed:think>"),
    "LongCat": ("<longcat_think>", "</longcat_think>"),
    "Solar": ("<|think|>", "<|end_think|>"),
    "bars": ("<|thinking|>", "<|/thinking|>"),
    "Solar Open": ("<|think:start|>", "<|think:end|>"),
    "DeepSeek's bars": ("<｜begin▁of▁thinking｜>", "<｜end▁of▁thinking｜>"),
    "thinking process": ("<thinking_process>\n", "\n</thinking_process>\n"),
    "monologue": ("<inner_monologue>", "</inner_monologue>"),
    "rationale": ("<rationale>", "</rationale>"),
    "chain of thought": ("<cot>", "</cot>"),
    "spaces in the tag": ("< think >", "</ think >"),
    "escaped": ("&lt;think&gt;", "&lt;/think&gt;"),
    "Gemma's unused tokens": ("<unused94>thought\n", "<unused95>"),
    "Sky-T1": ("<|begin_of_thought|>", "<|end_of_thought|><|begin_of_solution|>"),
    "Command A": ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    "Magistral": ("[THINK]", "[/THINK]"),
    "Kimi": ("◁think▷", "◁/think▷"),
    "gpt-oss": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    "gpt-oss, JSON": (
        "<|start|>assistant<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>",
    ),
    "gpt-oss without special tokens": ("analysisWell. ", "assistantfinal"),
    "Gemma": ("<|channel>thought\n", "\n<channel|>"),
    "Granite": ("Here is my thought process:\n", "\nHere is my response:\n"),
    "Granite, shorter": ("Here's my thought process: ", "\nHere's my response: "),
    "Granite, bold": ("**Here is my thought process:** ", "\n\n**Here is my response:**\n\n"),
    "gpt-oss on lines": ("analysis\n", "\nassistantfinal\n"),
    "Ollama": ("Thinking...\n", "\n...done thinking.\n\n"),
    "Open WebUI": ('<details type="reasoning" done="true">\n<summary>Thought</summary>\n', "\n</details>\n"),
    "GLM-V": ("<think>", "</think>\n<|begin_of_box|>"),
    "Apriel": ("Here are my reasoning steps:\n", "\n[BEGIN FINAL RESPONSE]\n"),
    "framed answer": ("<think>", "</think>\n<answer>\n"),
}
FRAMES = {"Sky-T1": "<|end_of_solution|>", "Command A": "<|END_RESPONSE|>", "Apriel": "[END FINAL RESPONSE]"}
FRAMES |= {"GLM-V": "<|end_of_box|>", "gpt-oss": "<|return|>", "framed answer": "\n</answer>"}
THOUGHT = "Perhaps [[2,3]]?\nCables go with what they connect."
each = pytest.mark.parametrize("block", BLOCKS)
# Words that an answer may use as well.
NOT_DISTINCT = ("gpt-oss without special tokens", "gpt-oss on lines", "Granite", "Granite, shorter", "Granite, bold")
NOT_DISTINCT += ("Apriel", "Ollama", "Open WebUI")


@each
def test_a_block_is_cut_and_one_that_never_ends_is_no_answer(block):
    begin, end = BLOCKS[block]
    whole = begin + THOUGHT + end + "[[1,2]]" + FRAMES.get(block, "")
    assert without_thinking(whole) == spoken(whole) == "[[1,2]]"
    assert without_thinking("\n" + whole) == "[[1,2]]"
    never_ended = begin + THOUGHT
    assert without_thinking(never_ended, cut=True) is None
    if block in NOT_DISTINCT:
        assert without_thinking(never_ended) == never_ended
    else:
        assert without_thinking(never_ended) is None and spoken(never_ended) == ""
        assert parse_answer(never_ended, 3).bundles == ()
    assert without_thinking(begin + end) == ""
    assert parse_answer(whole, 3).bundles == ((1, 2),) and parse_answer(whole, 3).valid


@each
def test_a_block_that_the_template_opened(block):
    begin, end = BLOCKS[block]
    rest = THOUGHT + end + "[[1,2]]" + FRAMES.get(block, "")
    assert without_thinking(rest, begun=True) == "[[1,2]]"
    assert without_thinking(THOUGHT, begun=True) is None
    if block not in NOT_DISTINCT:
        assert without_thinking(rest) == "[[1,2]]"
    if not block.startswith(("gpt-oss without", "gpt-oss on", "Open WebUI")):  # which no template opens
        assert opens_thinking("<|user|>hello<|assistant|>" + begin)
    assert not opens_thinking("<|user|>hello<|assistant|>" + begin + "\n" + end)


MENTIONS = [
    "The tags <think> and </think> mark reasoning.",
    "Write the tag </think> before the answer.",
    "Between `<think>` and `</think>` nothing is said.",
    "'<think>' is a tag.",
    '"</think>"',
    "Don't write </think>",
    "The closing tag is </think>.",
    "Write the tags: <think>, then </think>, then the answer [[1,2]].",
    "Use <think>…</think> for thoughts, then answer.",
    '1. The book "Think </think>" goes with pens.\n2. Cups.',
    "[THINK] posters go with frames.",
    "Here is my thought process: 1 and 3 are for coffee.",
    "Here are my reasoning steps:\n1. Cups need coffee.\n\nBundles: [[1,2]]",
    "AnalysisPro software goes with laptops.",
    "analysispro software goes with laptops.",
    "Analysis\nCups need coffee.",
    "Thinking...\nCups need coffee.",
    "<details><summary>Why</summary>Cups need coffee.</details>",
    "First, Here is my thought process: x. Here is my response: y",
    "Think about use.\nReasoning matters.",
    "**Thinking:** cables go together.",
    "Analysis of the list: cables go together.",
    "Here is my response: [[1,2]]",
    "<answer>[[1,2]]</answer>",
    "analysis",
    "[THINK",
    "1 < 2 and 3 > 2",
    "",
    "  two spaces  ",
]


@pytest.mark.parametrize("text", MENTIONS)
def test_an_answer_that_mentions_thinking_is_left_as_it_is(text):
    assert without_thinking(text) == text


@pytest.mark.parametrize(
    "text, left",
    [
        ("<think>a <think>b</think> c</think>d", "d"),
        ("<think>a</think>\n<think>b</think>\nc", "c"),
        ("<think>a</think><think>b</think>c", "c"),
        ("<think>it ends with `</think>` they say</think>c", "c"),
        ("Hm, 1 and 2</think>[[1,2]]", "[[1,2]]"),
        ("Hm, so be it. </think> [[1,2]]", "[[1,2]]"),
        ("[[1,2]]\n<think>\nor not\n</think>\n[[1,3]]", "[[1,2]]\n\n[[1,3]]"),
        ("Sure. <think>hm</think>[[1,2]]", "Sure. [[1,2]]"),
        ("</think>\n\n[[1,2]]", "[[1,2]]"),
        ("[[1,2]] <think>hm no</think>", "[[1,2]]"),
        ("Bundles: [[1,2]]<think>hm [[1,3]]</think>", "Bundles: [[1,2]]"),
        ("Okay <think>hm</think>[[1,2]]", "[[1,2]]"),
        ("Sure!<think>hm</think>[[1,2]]", "Sure![[1,2]]"),
        ("<think>I close with </think> before the answer.\n</think>[[1,2]]", "[[1,2]]"),
        ("<think>Then </think> is it", "is it"),
        ("<think>hm</thinking>[[1,2]]", "[[1,2]]"),
        ("<scratchpad>\n<reasoning>\nhm\n</reasoning>\n</scratchpad>\n[[1,2]]", "[[1,2]]"),
        ("[[1,2]]</think>", ""),
        ("<|channel|>commentary<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b", "b"),
        ("<|channel|>final<|message|>b", "b"),
    ],
)
def test_blocks_that_are_nested_repeated_or_come_later(text, left):
    assert without_thinking(text) == left


@pytest.mark.parametrize(
    "text, left",
    [
        ("[[1,2]]<think>hm", "[[1,2]]"),
        ("[[1,2]]\n<think>\nor", "[[1,2]]"),
        ("<think>a</think>\nb\n<think>", "b"),
        ("<think>a</think>\n<think>b", None),
        ("<answer>\n<think>b", ""),
        ("Okay, <think>so 1 and 2", "Okay, <think>so 1 and 2"),
    ],
)
def test_an_answer_before_a_block_that_never_ends_is_kept_unless_the_text_was_cut_off(text, left):
    assert without_thinking(text) == left
    assert without_thinking(text, cut=True) is None


pieces = st.sampled_from(
    ["<think>", "</think>", "<think", "[THINK]", "[/THINK]", "word ", "Words.", " ", "\n", "`", "[[1,2]]"]
    + ["<|channel|>analysis<|message|>", "<|channel|>final<|message|>", "<answer>", "</answer>", "◁think▷"]
)


@given(st.lists(pieces, max_size=14).map("".join))
def test_cutting_again_changes_nothing(text):
    left = without_thinking(text)
    assert left is None or without_thinking(left) == left


@given(st.text(st.characters(exclude_characters="<>[]◁▷|"), max_size=80))
def test_a_text_without_any_mark_is_itself(text):
    assert without_thinking("So: " + text) == "So: " + text


def test_the_prompt_decides_at_its_end_alone():
    assert opens_thinking("<|assistant|><think>\n") and opens_thinking("<think>")
    assert not opens_thinking("<think>\n\n</think>\n\n")
    assert not opens_thinking("say <think> and answer<|assistant|>")


@pytest.mark.parametrize("piece", ["<think></think>\n", "</think>", "a <think> ", "<|channel|>", "[[1,2]] </think>, "])
def test_a_long_text_takes_no_longer_than_its_length(piece):
    started = time.process_time()
    without_thinking(piece * 30_000 + "x")
    assert time.process_time() - started < 5  # some 50 times as long where each mark looks at the whole text
