"""Replies that are no answers: never taken for one, named, and asked again where asking helps."""

import errno
import fcntl
import json

import pytest
from http_calls import CALLS, ODD, PROMPTS, content, texts
from http_stand_in import Reply, answer_to
from teacher_stand_in import CALLS as HF_CALLS
from teacher_stand_in import StandIn, stand_in_teacher

from kdjax.errors import InputError
from kdjax.teacher import Answer, NoAnswer, TeacherCache, check_cache_dir, open_teacher
from kdjax.teacher.calls import canonical_json, make_request
from kdjax.teacher.endpoint import SWITCH
from kdjax.teacher.shards import write_shard

HTTP = {"kind": "http", "model": "tiny"}
EMPTY = dict.fromkeys(("prompt_ids", "token_ids", "target_logprobs", "logsumexp", "top_ids", "top_logprobs"), ())


def as_recorded(call, text, finish, **columns) -> Answer:
    """An answer as an earlier version recorded it."""
    request = make_request(HTTP, call, None)
    row = {"key": request.key, "fields": canonical_json(request.fields), "text": text, "finish_reason": finish}
    return Answer.from_row(row | EMPTY | {"prompt_tokens": 3, "completion_tokens": 0} | columns)


def record(cache_dir, answers) -> TeacherCache:
    cache = TeacherCache(cache_dir, HTTP)
    with cache.writing("tiny", None, print):
        for answer in answers:
            cache.append([answer], {"seconds": 0.0})
        cache.seal()
    return TeacherCache(cache_dir, HTTP)


NONE = {
    "nothing, cut off": ("", "length"),
    "nothing": ("", "stop"),
    "half a text of a failure": ("Bundle the", "error"),
    "filtered": ("", "content_filter"),
    "thinking that never ended": ("<think>Okay, the user", "length"),
    "thinking and no more": ("<think>hm</think>", "stop"),
}


@pytest.mark.parametrize("text, finish", NONE.values(), ids=NONE)
def test_a_recorded_reply_that_is_no_answer_is_asked_again_and_a_replay_names_it(
    opened, server, tmp_path, text, finish
):
    cache = record(tmp_path / "cache", [as_recorded(CALLS[0], text, finish), as_recorded(CALLS[1], "hi", "end_turn")])
    first, second = (make_request(HTTP, call, None).key for call in CALLS[:2])
    assert len(cache) == 1 and [*cache] == [second] and first not in cache and second in cache
    assert not cache.sealed(first) and cache.sealed(second) and cache[second].finish_reason == "stop"
    with pytest.raises(KeyError):
        cache[first]
    with open_teacher("replay", "tiny", tmp_path / "cache") as teacher:
        with pytest.raises(
            InputError, match=rf"(?s)1 of 2 prompts have no answer.*{PROMPTS[0]}.*finish_reason '{finish}'"
        ):
            teacher.ask(CALLS[:2])
        assert [type(reply) for reply in teacher.ask_each(CALLS[:2])] == [NoAnswer, Answer]
        assert "without an answer" in teacher.explain(CALLS[0])
        with pytest.raises(InputError, match="1 calls are not in the cache"):
            teacher.ask_each(CALLS[:3])
    with opened() as teacher:
        assert teacher.recorded(CALLS[0]) is None and texts(teacher.ask(CALLS[:2])) == [PROMPTS[0][::-1], "hi"]
    assert server.prompts() == [PROMPTS[0]]
    assert len(TeacherCache(tmp_path / "cache", HTTP)) == 2
    with opened() as teacher:
        teacher.ask(CALLS[:2])
    assert len(server.seen) == 1


def test_a_pass_that_yielded_nothing_may_be_asked_again_whole(opened, server, tmp_path):
    """Its shard has the very keys that the new one will have."""
    record(tmp_path / "cache", [as_recorded(call, "", "length") for call in CALLS])
    with opened() as teacher:
        assert texts(teacher.ask(CALLS)) == [prompt[::-1] for prompt in PROMPTS]
    cache = TeacherCache(tmp_path / "cache", HTTP)
    assert len(cache) == 6 and cache.damage == [] and not cache.unanswered
    assert len(list((cache.folder / "shards").iterdir())) == 2


def test_an_answer_of_an_earlier_version_is_read_without_its_thinking(tmp_path):
    said = [as_recorded(CALLS[0], "<think>hm [[1,3]]</think>\n\n[[1,2]]", "stop")]
    said += [as_recorded(CALLS[1], "whole", "", completion_tokens=3), as_recorded(CALLS[2], "ha", "max_tokens")]
    record(tmp_path, said)
    with open_teacher("replay", "tiny", tmp_path) as teacher:
        answers = teacher.ask(CALLS[:3])
    assert texts(answers) == ["[[1,2]]", "whole", "ha"]
    assert [answer.finish_reason for answer in answers] == ["stop", "stop", "length"]


def test_a_journalled_reply_that_is_no_answer_counts_as_little(opened, server, tmp_path):
    cache = TeacherCache(tmp_path / "cache", HTTP)
    with cache.writing("tiny", None, print):
        cache.append([as_recorded(CALLS[0], "", "length")], {"seconds": 0.0})
        assert len(cache) == 0
    with opened() as teacher:
        assert len(teacher.cache) == 0 and texts(teacher.ask(CALLS[:1])) == [PROMPTS[0][::-1]]
    assert len(server.seen) == 1 and len(TeacherCache(tmp_path / "cache", HTTP)) == 1


def test_a_cache_on_a_file_system_without_locks_is_written_and_the_log_warns(opened, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with opened() as teacher:
        assert texts(teacher.ask(CALLS[:1])) == [PROMPTS[0][::-1]]
    assert sum("file system without locks" in line for line in opened.said) == 1


def test_a_cache_that_is_there_may_have_any_name(tmp_path):
    (tmp_path / "run[1]").mkdir()
    check_cache_dir(str(tmp_path / "run[1]"))
    with pytest.raises(InputError, match="cannot be a folder"):
        check_cache_dir(str(tmp_path / "run[2]"))


def test_a_shard_written_twice_is_one(tmp_path):
    answers = [as_recorded(CALLS[0], "", "length")]
    assert write_shard(tmp_path, answers) == write_shard(tmp_path, answers)
    assert write_shard(tmp_path, [as_recorded(CALLS[0], "hi", "stop")]) != write_shard(tmp_path, answers)


PASSING = {
    "nothing": content(""),
    "an error beside an answer": Reply(body={"error": {"code": 502}} | answer_to("half")),
    "an error in the choice": Reply(
        body={"choices": [{"message": {"content": "half"}, "finish_reason": "stop", "error": {"code": 502}}]}
    ),
    "failed": content("half", "error"),
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_reply_that_failed_is_asked_again_at_once(opened, server, fault):
    server.faults[ODD] += [PASSING[fault]] * 2
    with opened() as teacher:
        assert texts(teacher.ask(CALLS)) == [prompt[::-1] for prompt in PROMPTS]
    assert sorted(server.prompts()) == sorted([*PROMPTS, ODD, ODD]) and len(teacher.cache) == 6


def test_each_reply_may_be_taken_for_itself(opened, server):
    server.lasting[ODD] = content("<think>hm", "length")
    with opened() as teacher:
        replies = teacher.ask_each(CALLS)
        assert [isinstance(reply, NoAnswer) for reply in replies] == [prompt == ODD for prompt in PROMPTS]
        assert "never ended" in str(replies[2]) and "<think>hm" in str(replies[2])
    server.lasting.clear(), server.seen.clear()
    with opened() as teacher:
        assert texts(teacher.ask_each(CALLS)) == [prompt[::-1] for prompt in PROMPTS]
    assert server.prompts() == [ODD]


def test_an_endpoint_that_never_answers_is_given_up(opened, server, monkeypatch):
    monkeypatch.setattr("kdjax.teacher.http_teacher.GIVE_UP", 3)
    server.reply, server.delay = lambda prompt: content("<think>hm", "length"), 0.1
    with opened(batch_size=1) as teacher, pytest.raises(InputError, match="never ended") as error:
        teacher.ask_each(CALLS)
    assert len(server.seen) < 6 and "were not asked any more" in str(error.value)


def test_parts_of_a_message_and_ends_without_a_word(opened, server):
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "[[1,"}]
    server.faults[PROMPTS[0]].append(content([*parts, {"type": "text", "text": "2]]"}]))
    counted = content("whole", None)
    counted.body = json.dumps(json.loads(counted.body) | {"usage": {"completion_tokens": 3}}).encode()
    server.faults[PROMPTS[1]].append(counted)
    with opened() as teacher:
        answers = teacher.ask(CALLS[:2])
    assert texts(answers) == ["[[1,2]]", "whole"] and answers[1].finish_reason == "stop"


def reply_of(message, finish="stop", usage=None, **more):
    return Reply(body={"choices": [{"message": message, "finish_reason": finish}], "usage": usage} | more)


COUNTED = {"prompt_tokens": 3, "completion_tokens": 5}
READ = {  # replies that are answers, in unusual shapes: (the reply, its end)
    "parts of the newer API": (reply_of({"content": [{"type": "output_text", "text": "[[1,2]]"}]}), "stop"),
    "parts without a type": (reply_of({"content": [{"text": "[[1,"}, {"text": "2]]"}]}), "stop"),
    "parts that are strings": (reply_of({"content": ["[[1,", "2]]"]}), "stop"),
    "a part that is null": (reply_of({"content": [{"type": "text", "text": None}, "[[1,2]]"]}), "stop"),
    "redacted thinking": (
        reply_of({"content": [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "[[1,2]]"}]}),
        "stop",
    ),
    "an empty error": (reply_of({"content": "[[1,2]]", "error": {}}, error={"code": None, "message": None}), "stop"),
    "an error with code 0": (reply_of({"content": "[[1,2]]"}, error={"code": 0, "message": "ok"}), "stop"),
    "filters that held nothing back": (
        reply_of({"content": "[[1,2]]", "content_filter_results": {"hate": {"filtered": False}}, "refusal": ""}),
        "stop",
    ),
    "counts with a point": (reply_of({"content": "[[1,2]]"}, None, {"completion_tokens": 5.0}), "stop"),
    "no end, counted": (reply_of({"content": "[[1,2]]"}, None, COUNTED), "stop"),
    "no end, all tokens used": (reply_of({"content": "[[1,2]]"}, None, {"completion_tokens": 8}), "length"),
    "no end, not counted": (reply_of({"content": "[[1,2]]"}, None), "length"),
    "no field for the end": (Reply(body={"choices": [{"message": {"content": "[[1,2]]"}}], "usage": COUNTED}), "stop"),
    "an unknown end": (reply_of({"content": "[[1,2]]"}, "whatever", COUNTED), "length"),
    "an end-of-turn token": (reply_of({"content": "[[1,2]]<|im_end|>"}), "stop"),
}


@pytest.mark.parametrize("reply, end", READ.values(), ids=READ)
def test_an_answer_in_an_unusual_shape(opened, server, reply, end):
    server.lasting[ODD] = reply
    with opened() as teacher:
        (answer,) = teacher.ask([CALLS[2]])
    assert (answer.text, answer.finish_reason) == ("[[1,2]]", end) and len(server.seen) == 1


def test_a_refusal_is_no_answer_and_is_quoted(opened, server):
    message = {"content": None, "refusal": "I cannot help with that."}
    server.lasting[ODD] = Reply(body={"choices": [{"message": message, "finish_reason": "stop"}]})
    with opened() as teacher, pytest.raises(InputError, match="filter.*I cannot help with that"):
        teacher.ask(CALLS)


# Thinking, asked for or not.


def strict(server, status, words):
    """Let the server refuse the field that switches thinking."""
    reply = server.reply
    server.reply = lambda prompt: Reply(status, words) if SWITCH in server.seen[-1][2] else reply(prompt)


@pytest.mark.parametrize(
    "status, words",
    [
        (400, {"error": {"message": f"Unrecognized request argument supplied: {SWITCH}"}}),
        (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", SWITCH]}]}),
        (400, {"error": {"message": "Extra inputs are not permitted"}}),
        (400, {"message": "Unknown parameter"}),
        (400, {}),
        (422, {}),
        (500, {"error": {"message": f"TypeError: unexpected keyword argument '{SWITCH}'"}}),
        (501, {"error": {"message": "enable_thinking is not implemented"}}),
        (403, {"error": {"message": "this model does not support thinking"}}),
        (404, {"error": {"message": f"no such field: {SWITCH}"}}),
        (415, {"error": {"message": "Reasoning cannot be switched"}}),
        (200, {"error": {"message": f"{SWITCH} is not supported"}}),
    ],
)
def test_an_endpoint_that_refuses_the_switch_is_asked_without(opened, server, status, words):
    strict(server, status, words)
    with opened(batch_size=1) as teacher:
        assert texts(teacher.ask(CALLS)) == [prompt[::-1] for prompt in PROMPTS]
        assert len(server.seen) == 7 and sum(SWITCH in payload for _, _, payload in server.seen) == 1
    assert sum(f"refuses {SWITCH}" in line for line in opened.said) == 1
    assert not any("attempt" in line for line in opened.said)


def test_another_refusal_leaves_the_switch_alone(opened, server):
    server.lasting[ODD] = Reply(400, {"error": {"message": "maximum context length is 64 tokens"}})
    with opened(batch_size=1) as teacher, pytest.raises(InputError, match="context length is 64"):
        teacher.ask(CALLS)
    sent = [SWITCH in payload for _, _, payload in server.seen]
    assert len(sent) == 7 and sent.count(False) == 1  # the attempt without it is refused as well
    assert not any(f"refuses {SWITCH}" in line for line in opened.said)


@pytest.mark.parametrize(
    "reply", [Reply(429, {"error": "thinking takes a while"}), Reply(503, {"error": "tiny is busy"})]
)
def test_a_busy_endpoint_does_not_refuse_the_switch(opened, server, reply):
    server.faults[ODD].append(reply)
    with opened(batch_size=1) as teacher:
        teacher.ask(CALLS)
    assert len(server.seen) == 7 and all(SWITCH in payload for _, _, payload in server.seen)


def test_a_model_named_for_its_thinking_is_no_refusal(opened, server, tmp_path):
    server.faults[ODD].append(Reply(500, {"error": "tiny-thinking crashed"}))
    with open_teacher("http", "tiny-thinking", tmp_path, url=server.url, log=print) as teacher:
        teacher.ask(CALLS)
    assert len(server.seen) == 7 and all(SWITCH in payload for _, _, payload in server.seen)


def test_thinking_is_another_call_of_an_endpoint(opened, server, tmp_path):
    with opened() as teacher:
        teacher.ask(CALLS[:1])
    with opened(thinking=True) as teacher:
        said = teacher.explain(CALLS[0])
        assert "teacher.thinking: asked True, cached False" in said
        teacher.ask(CALLS[:2])
        assert "thinking: asked False, cached True" in said_of(opened, CALLS[1])
    sent = [payload[SWITCH]["enable_thinking"] for _, _, payload in server.seen]
    assert sorted(sent) == [False, True, True]
    with open_teacher("replay", "tiny", tmp_path / "cache", thinking=True) as teacher:
        assert len(teacher.ask(CALLS[:2])) == 2


def said_of(opened, call):
    with opened() as teacher:
        return teacher.explain(call)


def test_a_miss_that_differs_in_thinking_and_more_says_both(opened):
    with opened(thinking=True) as teacher:
        teacher.ask(CALLS[:1])
    said = said_of(opened, CALLS[1])
    assert "thinking: asked False, cached True" in said and "messages: from character" in said


def test_a_prompt_that_the_endpoint_cut_is_told_whenever_it_is_read(opened, server, tmp_path):
    call = type(CALLS[0])((("system", "one two three"), ("user", "four five six")), 8)
    server.answer = lambda prompt: answer_to(prompt) | {"usage": {"prompt_tokens": 4, "completion_tokens": 3}}
    with opened() as teacher:
        teacher.ask([*CALLS, call])
    lines = [line for line in opened.said if "cut" in line]
    assert len(lines) == 1 and "1 of 7 prompts" in lines[0] and "at least 6 tokens the endpoint counted 4" in lines[0]
    again = []
    with open_teacher("replay", "tiny", tmp_path / "cache", log=again.append) as teacher:
        teacher.ask([call])
    assert len(again) == 1 and "num_ctx" in again[0]


# A model on this machine says the same again, so it is not asked again.


@pytest.fixture
def saying(tiny_tokenizer, tokenizer_folder, tmp_path, monkeypatch):
    """A stand-in that says a text, in tokens."""

    def saying(text, finish="length"):
        ids = tiny_tokenizer.encode(text) + ([1] if finish == "stop" else [])
        blank = {"target_logprobs": [0.0] * len(ids), "logsumexp": [0.0] * len(ids)}
        monkeypatch.setattr(
            StandIn,
            "_reply",
            lambda self, request, companions: (
                blank
                | {"top_ids": [[0] * request.call.top_k_logprobs] * len(ids)}
                | {"top_logprobs": [[0.0] * request.call.top_k_logprobs] * len(ids)}
                | {"finish_reason": finish, "token_ids": ids}
            ),
        )
        return stand_in_teacher(tokenizer_folder, tmp_path)

    return saying


def test_a_model_that_only_thinks_has_no_answer_and_is_not_asked_again(saying):
    for _ in range(2):
        with saying("<think>Okay, the user") as teacher:
            with pytest.raises(InputError, match=r"2 of 2 prompts have no answer.*(?s:.*)knowledge\.max_new_tokens"):
                teacher.ask(HF_CALLS[:2])
            assert all(isinstance(reply, NoAnswer) for reply in teacher.ask_each(HF_CALLS[:2]))
            assert isinstance(teacher.recorded(HF_CALLS[0]), NoAnswer)
            asked = teacher._worker.batches
    assert asked == []


def test_a_model_that_says_nothing_is_believed(saying):
    with saying("", "stop") as teacher:
        assert texts(teacher.ask(HF_CALLS[:2])) == ["", ""]


def test_the_text_is_what_follows_thinking_and_all_tokens_are_kept(saying, tiny_tokenizer, tmp_path):
    with saying("<think>hm</think>\n\nhi", "stop") as teacher:
        (answer,) = teacher.ask(HF_CALLS[:1])
        assert answer.text == "hi" and tiny_tokenizer.decode(answer.token_ids) == "<think>hm</think>\n\nhi"
        assert teacher.cache[answer.key].text == "hi"
    raw = Answer.from_row(answer.to_row() | {"text": "<think>hm</think>\n\nhi"})  # as an earlier version kept it
    write_shard(tmp_path / "raw", [raw])
    with teacher.cache.writing("tiny", teacher.tokenizer, print):
        teacher.cache.append([raw], {"seconds": 0.0})
    assert teacher._reply(answer.key).text == "hi"
