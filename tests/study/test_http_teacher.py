"""Rules from a teacher over HTTP, as a run distils them; the endpoint is a local server without a model."""

import pytest
from http_stand_in import Reply, answer_to

from configs.sft_rules import get_config
from kdjax.data import load_domain
from kdjax.errors import InputError
from kdjax.reporting import RunLog, read_jsonl
from kdjax.study.distil import card_path, check_teacher, distil, without_teacher
from kdjax.study.settings import check
from kdjax.teacher import open_teacher

RULE = "Bundle a coffee grinder with fresh beans."


def teach(prompt: str) -> dict:
    """A reply that bundles the first two products, or gives a rule where rules are asked for."""
    said = answer_to(prompt)
    said["choices"][0]["message"]["content"] = RULE if "short rules" in prompt else "[[1,2]]"
    return said


@pytest.fixture
def server(server):
    server.answer = teach
    return server


@pytest.fixture
def run(server, tmp_path):
    """Distil into a workdir of its own; the teacher's cache is the same for all."""

    def run(workdir: str, **teacher):
        config = get_config("smoke")
        where = {"kind": "http", "source": "tiny", "url": server.url, "cache_dir": str(tmp_path / "cache")}
        config.teacher.update(where | teacher)
        check(config)
        domains, folder = {"demo": load_domain("demo", "", "demo")}, tmp_path / workdir
        ready = without_teacher(config, domains, domains, folder, len, print)
        check_teacher(config, ready)
        with RunLog(folder) as log:
            cards = distil(config, domains, domains, ready, folder, len, log)
        return cards["demo"]["rules"], folder

    return run


def test_cards_name_the_calls_they_came_from(run, server, tmp_path):
    cards, folder = run("first")
    assert [card.text for card in cards] == [RULE] and cards[0].support == 8
    (row,) = read_jsonl(card_path(folder, "demo", "rules"))
    with open_teacher("replay", "tiny", tmp_path / "cache") as teacher:
        assert len(row["calls"]) == len(teacher.cache) and set(row["calls"]) == set(teacher.cache)
    (event,) = [event for event in read_jsonl(folder / "log.jsonl") if event["event"] == "teacher"]
    assert event["asked"] == len(server.seen) and event["prompt_tokens"] > 0 and event["completion_tokens"] > 0

    asked = len(server.seen)
    assert run("second", batch_size=2)[0] == cards and len(server.seen) == asked


def test_a_run_that_lacks_answers_goes_on_when_it_is_started_again(run, server):
    server.answer = lambda prompt: {} if "short rules" in prompt else teach(prompt)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdjax.teacher.http_teacher.FIRST_WAIT", 0.001)
        with pytest.raises(InputError, match="8 of 8 prompts have no answer"):
            run("first")
    server.answer = teach
    server.seen.clear()
    cards, _ = run("first")
    assert cards[0].text == RULE and len(server.seen) == 8  # the last turn of eight sessions


def test_a_missing_key_is_told_before_anything_is_written(run, server, tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(InputError, match="NO_SUCH_KEY.*is not set"):
        run("first", key_variable="NO_SUCH_KEY")
    assert not server.seen and not list(tmp_path.iterdir())


def test_a_wrong_key_ends_the_run_at_once(run, server, monkeypatch):
    monkeypatch.setenv("WRONG_KEY", "sk-wrong-0123456789")
    server.reply = lambda prompt: Reply(401, b"wrong key")
    with pytest.raises(InputError, match="401 Unauthorized: 'wrong key'"):
        run("first", key_variable="WRONG_KEY")
    assert len(server.seen) <= 8


def test_a_session_without_an_answer_is_left_out_and_asked_about_again(run, server, capsys):
    odd: list[str] = []

    def reply(prompt):
        if "short rules" in prompt or "underlying" in prompt or "Which kinds" in prompt:
            return Reply(body=teach(prompt))
        odd[:] = odd or [prompt]
        thinking = {"choices": [{"message": {"content": "<think>hm"}, "finish_reason": "length"}]}
        return Reply(body=thinking if prompt == odd[0] else teach(prompt))

    server.reply = reply
    cards, _ = run("first")
    assert [card.text for card in cards] == [RULE] and cards[0].support == 7
    assert "1 of 8 sessions are left out" in capsys.readouterr().out
    asked = len(server.seen)
    assert run("again", kind="replay")[0] == cards and len(server.seen) == asked
    odd[0] = ""
    assert run("second")[0][0].support == 8
    assert len({payload["messages"][0]["content"] for _, _, payload in server.seen[asked:]}) == 1


def test_a_teacher_that_answers_about_few_sessions_is_an_error_that_names_the_cure(run, server):
    thinking = {"choices": [{"message": {"content": "<think>hm"}, "finish_reason": "length"}]}
    server.reply = lambda prompt: Reply(body=thinking)
    with pytest.raises(InputError, match=r"no answer about 8 of 8 sessions.*raise knowledge\.max_new_tokens"):
        run("first")
