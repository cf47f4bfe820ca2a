"""What counts as an answer: how endpoints end a reply, thinking in generated tokens, prompts that were cut."""

import pytest

from kdjax.teacher.replies import NoAnswer, cut_prompt, generated, read

ENDS = (
    "stop STOP Stop end_turn endTurn eos eos_token EOS stop_sequence stop-sequence completed COMPLETE finished im_end "
    "FINISH_REASON_STOP stopped_eos stopped_word natural_stop eosFound stop_sequence_reached </s> <|endoftext|> <|eot_id|> SUCCEEDED"
)
LIMITS = (
    "length LENGTH max_tokens MAX_TOKENS maxTokens max_output_tokens model_length model_context_window_exceeded "
    "FINISH_REASON_MAX_TOKENS limit stop_limit stopped_limit token_limit output_limit max_time incomplete whatever "
    "context_length_exceeded repetition_truncation stopped_by_user unfinished weekend"
)
FILTERS = (
    "content_filter SAFETY RECITATION refusal PROHIBITED_CONTENT BLOCKLIST SPII sensitive content_filtered "
    "contentFiltered policy_violation unsafe copyright safety_stop guardrail_intervened"
)
FAILURES = (
    "error ERROR network_error abort cancelled insufficient_system_resource OTHER failed timeout MALFORMED_RESPONSE "
    "ERROR_TOXIC rate_limit_exceeded quota server_busy internal exception out_of_memory preempted killed disconnected "
    "deadline_exceeded expired engine_overloaded stop_timeout time_out bad_gateway FINISH_REASON_OTHER"
)


@pytest.mark.parametrize("word", ENDS.split())
def test_words_for_a_models_own_end(word):
    assert read("hi", word, 0, 8) == ("hi", "stop")


@pytest.mark.parametrize("word", LIMITS.split())
def test_words_for_the_limit(word):
    assert read("hi", word, 3, 8) == ("hi", "length")


@pytest.mark.parametrize("word", FILTERS.split())
def test_words_for_what_was_held_back(word):
    with pytest.raises(NoAnswer, match=word) as failure:
        read("half a tex", word, 3, 8)
    assert not failure.value.again  # a filter says the same again


@pytest.mark.parametrize("word", FAILURES.split())
def test_words_for_a_failure_are_asked_again(word):
    with pytest.raises(NoAnswer, match="failed while it answered") as failure:
        read("half a tex", word, 3, 8)
    assert failure.value.again


@pytest.mark.parametrize("word", ["tool_calls", "function_call", "tool_use", "pause_turn"])
def test_a_tool_is_no_answer(word):
    with pytest.raises(NoAnswer, match="tool") as failure:
        read("", word, 3, 8)
    assert not failure.value.again


@pytest.mark.parametrize("word", ["", "null", "none", "FINISH_REASON_UNSPECIFIED", "unknown"])
@pytest.mark.parametrize("written, end", [(7, "stop"), (8, "length"), (9, "length"), (0, "length")])
def test_an_absent_word_is_judged_by_the_tokens_written(word, written, end):
    assert read("hi", word, written, 8) == ("hi", end)


@pytest.mark.parametrize("text", ["", " \n", "<think>hm</think>", "<think>\n\n</think>\n\n"])
@pytest.mark.parametrize("finish, again", [("stop", True), ("length", False)])
def test_an_empty_reply_is_no_answer(text, finish, again):
    with pytest.raises(NoAnswer, match=f"no text.*{finish}") as failure:
        read(text, finish, 8, 8)
    assert failure.value.again is again and ("max_new_tokens" in str(failure.value)) is (
        finish == "length" or len(text) > 2
    )


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_thinking_that_never_ended_is_no_answer_and_the_cure_is_named(finish):
    with pytest.raises(NoAnswer, match=r"never ended.*64 tokens.*knowledge\.max_new_tokens.*teacher\.thinking=False"):
        read("<think>Okay, the user", finish, 64, 64)


@pytest.mark.parametrize(
    "text", ["<|im_end|>", "</s>", "<|im_end|>\n<|endoftext|>", "\u200b", "\ufffd", "...", '""', "null", "None"]
    + ["<|begin_of_box|><|end_of_box|>", "<think>hm</think><|begin_of_box|><|end_of_box|>"]
)  # fmt: skip
def test_a_reply_without_a_letter_or_digit_is_no_answer(text):
    with pytest.raises(NoAnswer, match="no text") as failure:
        read(text, "stop", 3, 8)
    assert failure.value.again


@pytest.mark.parametrize(
    "text, said",
    [
        ("[[1,2]]<|im_end|>", "[[1,2]]"),
        ("hi</s>\n", "hi"),
        ("hi\n<end_of_turn>", "hi"),
        ("<|begin_of_box|>[[1,2]]<|end_of_box|>", "[[1,2]]"),
        ("<think>hm</think>hi<|eot_id|>", "hi"),
        ("The token </s> ends it.", "The token </s> ends it."),
        ("None of them", "None of them"),
        ("7", "7"),
        ("好", "好"),
    ],
)
def test_tokens_that_end_a_turn_are_no_part_of_a_text(text, said):
    assert read(text, "stop", 3, 8) == (said, "stop")


def test_words_that_may_begin_thinking_are_judged_by_the_end_of_the_reply():
    text = "Here is my thought process: cups need coffee."
    assert read(text, "stop", 3, 8) == (text, "stop")
    with pytest.raises(NoAnswer, match="never ended"):
        read(text, "length", 8, 8)


def test_what_is_said_after_thinking():
    assert read("<think>hm</think>\n\nhi ", "stop", 8, 8) == ("hi", "stop")
    assert read(" hi\n", "stop", 8, 8) == (" hi\n", "stop")  # as it came


PROMPT = "<|user|>q<|end|><|assistant|>"


@pytest.mark.parametrize(
    "prompt, said, text",
    [
        (PROMPT, "hi", "hi"),
        (PROMPT, " hi\n", " hi\n"),
        (PROMPT, "", ""),
        (PROMPT, "<think>\nhm\n</think>\n\nhi", "hi"),
        (PROMPT, "<|system|>hi<|pad|>", "hi"),
        (PROMPT, "<think>hm</think><|system|>hi", "hi"),
        (PROMPT + "<think>\n", "hm\n</think>\n\nhi", "hi"),
        (PROMPT + "<think>\n\n</think>\n\n", "hi", "hi"),
    ],
)
@pytest.mark.parametrize("finish", ["stop", "length"])
def test_what_a_model_generated(tiny_tokenizer, prompt, said, text, finish):
    ids = tiny_tokenizer.encode(said) + ([tiny_tokenizer.eos_id] if finish == "stop" else [])
    assert generated(tiny_tokenizer, tiny_tokenizer.encode(prompt), ids, finish) == text


@pytest.mark.parametrize(
    "prompt, said, finish, words",
    [
        (PROMPT, "<think>Okay, the", "length", "used up all its tokens"),
        (PROMPT + "<think>\n", "Okay, the", "length", "used up all its tokens"),
        (PROMPT, "<think>hm</think>\n", "length", "used up all its tokens"),
        (PROMPT + "<think>\n", "Okay.", "stop", "ended its turn while thinking"),
        (PROMPT + "<think>\n", "", "stop", "ended its turn while thinking"),
    ],
)
def test_thinking_that_a_model_did_not_get_beyond(tiny_tokenizer, prompt, said, finish, words):
    ids = tiny_tokenizer.encode(said) + ([tiny_tokenizer.eos_id] if finish == "stop" else [])
    with pytest.raises(NoAnswer, match=rf"{words}.*knowledge\.max_new_tokens"):
        generated(tiny_tokenizer, tiny_tokenizer.encode(prompt), ids, finish)


def test_special_tokens_that_mark_thinking_are_seen(tiny_tokenizer, tmp_path):
    import tokenizers

    from kdjax.sources import Tokenizer

    inner = tokenizers.Tokenizer.from_str(tiny_tokenizer.inner.to_str())
    inner.add_special_tokens(["<|channel|>", "<|message|>", "<|start|>"])
    harmony = Tokenizer(inner, tiny_tokenizer.settings, [1], "here")
    said = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>hi"
    assert generated(harmony, harmony.encode(PROMPT), [*harmony.encode(said), 1], "stop") == "hi"


@pytest.mark.parametrize(
    "texts, counted, least",
    [
        (["one two three"], 3, 0),
        (["one two three"], 2, 3),
        (["one two", "three"], 2, 3),
        (["one two three"], 0, 0),  # not counted
        (["x" * 320], 9, 10),
        (["x" * 320], 10, 0),
        (["词" * 320], 29, 30),
        ([""], 1, 0),
    ],
)
def test_a_prompt_that_was_cut(texts, counted, least):
    assert cut_prompt(texts, counted) == least
