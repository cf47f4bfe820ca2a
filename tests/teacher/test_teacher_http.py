"""The HTTP teacher against a real server on this machine."""

import json
import time

import pytest
from http_calls import CALLS, KEY, ODD, PROMPTS, texts
from http_stand_in import Reply, answer_to

from kdjax.errors import InputError
from kdjax.teacher import Call, open_teacher


def test_answers_usage_and_what_is_sent(opened, server):
    call = Call((("system", "be brief"), ("user", "hé")), max_new_tokens=7, temperature=0.5, seed=3)
    with opened() as teacher:
        answers = teacher.ask([*CALLS, call, CALLS[0]])
        assert texts(answers) == [prompt[::-1] for prompt in [*PROMPTS, "hé", PROMPTS[0]]]
        assert all(answer.finish_reason == "stop" and len(answer.prompt_ids) == 0 for answer in answers)
        counts = (teacher.stats.asked, teacher.stats.prompt_tokens, teacher.stats.completion_tokens)
        assert counts == (7, 6 * len(PROMPTS[0]) + 2, 7 * 3)
    path, headers, payload = next(seen for seen in server.seen if len(seen[2]["messages"]) == 2)
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {KEY}"
    seed = payload.pop("seed")
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hé"}]
    assert payload.pop("chat_template_kwargs") == {"enable_thinking": False}
    assert payload == {"model": "tiny", "messages": messages, "max_tokens": 7, "temperature": 0.5} and seed >= 0
    assert all("seed" not in payload for _, _, payload in server.seen if payload["temperature"] == 0)
    manifest = json.loads((teacher.cache.folder / "manifest.json").read_text())
    assert manifest["identity"] == {"kind": "http", "model": "tiny"}
    (run,) = manifest["passes"][0]["runs"]
    assert run["url"] == server.url and run["answered_by"] == "tiny-2026-01"


def test_the_second_time_nothing_is_asked_whatever_the_url_and_a_replay_needs_no_tokenizer(opened, server, tmp_path):
    with opened() as teacher:
        first = [answer.to_row() for answer in teacher.ask(CALLS)]
    asked = len(server.seen)
    with opened(url="http://localhost:1/v1", key_variable="") as teacher:
        assert [answer.to_row() for answer in teacher.ask(CALLS)] == first and teacher.stats.cached == 6
    with open_teacher("replay", "tiny", tmp_path / "cache") as teacher:
        teacher.check()
        assert [answer.to_row() for answer in teacher.ask(CALLS)] == first
        with pytest.raises(InputError, match="1 calls are not in the cache"):
            teacher.ask([Call((("user", "new"),), 8)])
    assert len(server.seen) == asked


def test_an_answer_cut_off_and_one_without_usage(opened, server):
    cut = answer_to("x")
    cut["choices"][0]["finish_reason"] = "length"
    cut["choices"][0]["message"]["content"] = "half \ud83d"  # an emoji's first half
    del cut["usage"]
    server.faults[ODD].append(Reply(body=cut))
    with opened() as teacher:
        (answer,) = teacher.ask([CALLS[2]])
    assert (answer.finish_reason, answer.text, answer.prompt_tokens) == ("length", "half ?", 0)


def test_no_more_requests_are_under_way_than_allowed(opened, server):
    server.delay = 0.05
    with opened(batch_size=3) as teacher:
        teacher.ask(CALLS)
    assert server.most_under_way == 3


def test_a_pass_that_was_broken_off_loses_only_what_is_under_way(opened, server):
    def on_batch(done, total):
        if done == 3:
            raise KeyboardInterrupt

    server.delay = 0.2  # longer than it takes to hear of the end
    with opened(batch_size=1) as teacher, pytest.raises(KeyboardInterrupt):
        teacher.ask(CALLS, on_batch=on_batch)
    time.sleep(0.5)  # the request under way ends
    asked_before = len(server.seen)
    assert asked_before <= 5
    with opened() as teacher:
        assert len(teacher.cache) == 3
        teacher.ask(CALLS)
    assert len(server.seen) - asked_before == 3


def test_a_miss_is_explained(opened, server, tmp_path):
    with opened() as teacher:
        teacher.ask(CALLS[:1])
        assert teacher.explain(CALLS[0]) == "the call is in the cache"
        said = teacher.explain(Call((("user", "question zero"),), 9, temperature=1.0))
        assert (
            "max_new_tokens: asked 9, cached 8; temperature: asked 1.0, cached 0.0; messages: from character 15" in said
        )
        assert "asked 'zero', cached '0'" in said
    with open_teacher("http", "other", tmp_path / "cache", url="https://host/v1") as teacher:
        assert "differs in model: asked other, cached tiny" in teacher.explain(CALLS[0])
    with open_teacher("http", "other", tmp_path / "cache", url=server.url) as teacher:
        teacher.ask(CALLS[1:2])  # from now on there is a nearest call, but another teacher has the very one
        assert "has answered this call, and differs in model: asked other, cached tiny" in teacher.explain(CALLS[0])
        assert "has answered" not in teacher.explain(CALLS[2])


def test_log_probabilities_are_refused_before_anything_is_asked(opened, server):
    with opened() as teacher, pytest.raises(InputError, match="top_k_logprobs"):
        teacher.ask([*CALLS, Call((("user", "x"),), 8, top_k_logprobs=2)])
    assert not server.seen
