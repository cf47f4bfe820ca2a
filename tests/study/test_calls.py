"""Which teacher calls are still to be made; the endpoint is a local server without a model."""

from dataclasses import replace
from unittest.mock import ANY

import pytest
from http_stand_in import Reply

from configs import aicl as aicl_config
from configs.sft_rules import get_config
from kdjax.data import load_domain
from kdjax.errors import InputError
from kdjax.knowledge import AFTER_NEIGHBOUR, MOST_TURNS
from kdjax.reporting import RunLog
from kdjax.study.calls import CallCounter, Calls, conversations
from kdjax.study.distil import distil, open_config_teacher
from kdjax.study.grid import Run
from kdjax.study.quantity import sampled
from kdjax.teacher import open_teacher
from kdjax.teacher.cache import read_manifest

DOMAINS = {"demo": load_domain("demo", "", "demo")}


@pytest.fixture
def run(server, tmp_path):
    """A run with this teacher in a folder of its own; the teacher's cache is the same for all."""

    def run(name: str, config=None, **fields) -> Run:
        config = config or get_config("smoke")
        config.teacher.update(kind="http", source="tiny", url=server.url, cache_dir=str(tmp_path / "cache"))
        config.update_from_flattened_dict({field.replace("__", "."): value for field, value in fields.items()})
        return Run(0, config, tmp_path / name)

    return run


def count(*runs: Run) -> list[Calls]:
    counter = CallCounter()
    return [counter(one, DOMAINS) for one in runs]


def teach(one: Run) -> None:
    with RunLog(one.folder) as log:
        distil(one.config, DOMAINS, DOMAINS, {"demo": {}}, one.folder, len, log)


def test_before_anything_is_asked_all_is_to_come_and_nobody_knows_how_long(run, server):
    first = run("first", knowledge__reflections=8)
    assert count(first) == [Calls(to_come=8 * 4, unknown=8 * 4)] and not server.seen


def test_what_is_recorded_is_found_turn_by_turn(run, server, tmp_path):
    teach(run("first", knowledge__reflections=3))
    asked = len(server.seen)
    [found] = count(run("second", knowledge__reflections=8))
    assert found.recorded == asked and found.to_come == 5 * 4 and found.unknown == 0
    with open_teacher("replay", "tiny", tmp_path / "cache") as teacher:
        assert found.seconds == pytest.approx(20 * teacher.cache.seconds_per_answer) and found.seconds > 0
        passes = read_manifest(teacher.cache.folder)["passes"]
        took = sum(part["seconds"] for one in passes for part in one["runs"])
        assert teacher.cache.seconds_per_answer == pytest.approx(took / asked)
    assert len(server.seen) == asked


def test_what_runs_share_counts_with_the_first(run):
    more, fewer = run("more", knowledge__reflections=8), run("fewer", knowledge__reflections=3)
    longer = run("longer", knowledge__reflections=3, knowledge__max_new_tokens=9)
    thinks = run("thinks", knowledge__reflections=3, teacher__thinking=True)
    assert [one.to_come for one in count(more, fewer, longer, thinks)] == [32, 0, 12, 12]


def test_cards_on_disk_and_cells_without_a_teacher_ask_nothing(run):
    one = run("first")
    teach(one)
    untaught = run("other", knowledge__formats=("patterns",))
    statistics = run("statistics")
    statistics.config.teacher.kind = "annotations"
    assert count(one, untaught, statistics) == [Calls()] * 3


def test_thoughts_are_a_call_for_each_session(run):
    one = run("first", knowledge__formats=("thoughts",), knowledge__thoughts=5)
    assert count(one) == [Calls(to_come=5, unknown=5)]


def test_a_sample_is_asked_about_its_own(run):
    thoughts = {"knowledge__formats": ("thoughts",), "knowledge__thoughts": 40}
    whole = [*conversations(run("whole", **thoughts), DOMAINS)]
    for uses in (("knowledge",), ("training",)):
        sample = run("sample", **thoughts, quantity__ratio=0.25, quantity__applies_to=uses)
        asked = [*conversations(sample, DOMAINS)]
        if "knowledge" in uses:
            assert 1 < len(asked) < 40 and {*asked} < {*whole}
        else:
            assert asked == whole


def test_a_replay_that_lacks_an_answer_is_an_error_before_anything_runs(run):
    teach(run("first", knowledge__reflections=3))
    second = run("second", knowledge__reflections=8)
    second.config.teacher.kind = "replay"
    with pytest.raises(InputError, match="calls are not in the cache"):
        count(second)


def test_dialogues_of_aicl_are_replayed_too(run, server):
    one = run("aicl", aicl_config.get_config("smoke"), eval__max_sessions=2)
    [before] = count(one)
    assert before == Calls(to_come=2 * MOST_TURNS, unknown=2 * MOST_TURNS)
    with open_config_teacher(one.config, print) as teacher:
        for dialogue in conversations(one, DOMAINS):
            dialogue.hold(teacher.ask)
    asked = len(server.seen)
    [after] = count(one)
    assert (after.recorded, after.to_come) == (asked, 0) and len(server.seen) == asked
    encoded = one.config.copy_and_resolve_references()
    encoded.prompting.encoder = "read-later"
    assert count(replace(one, config=encoded)) == [replace(after, recorded=0, to_come=2 * MOST_TURNS, seconds=ANY)]


def test_the_neighbours_of_a_sample_are_its_own(run):
    config = aicl_config.get_config("smoke")
    config.quantity.ratio = 0.1
    chosen = sampled(config, DOMAINS, "knowledge")["demo"].splits["train"]
    found = [one.neighbour for one in conversations(run("aicl", config, eval__max_sessions=0), DOMAINS)]
    assert len(found) == 40 and {*found} <= {*chosen}
    config.quantity.strategy = "difficulty"
    dialogues = [run(name, config, eval__max_sessions=2) for name in ("hard", "as hard")]
    assert [one.to_come for one in count(*dialogues)] == [2 * MOST_TURNS] * 2  # not known: at most


def test_dialogues_with_one_neighbour_share_what_is_said_of_it(run, monkeypatch):
    one = run("aicl", aicl_config.get_config("smoke"), eval__max_sessions=2)
    near = DOMAINS["demo"].splits["train"][0]
    monkeypatch.setattr("kdjax.study.calls.Neighbours", lambda sessions: lambda session, k: [near])
    assert count(one)[0].to_come == MOST_TURNS + AFTER_NEIGHBOUR


def test_a_conversation_that_ended_without_an_answer_goes_no_further(run, server):
    one = run("first", knowledge__reflections=3)
    thinking = {"choices": [{"message": {"content": "<think>hm"}, "finish_reason": "length"}]}
    first = None

    def reply(prompt):
        nonlocal first
        first = first or prompt
        return Reply(body=thinking if prompt == first else server.answer(prompt))

    server.reply = reply
    teach(one)
    again = run("again", knowledge__reflections=3)
    assert count(again)[0].to_come == 4  # an endpoint may answer it yet
    again.config.teacher.kind = "replay"
    assert count(again) == [Calls(recorded=2 * 4, to_come=0)]  # two of three sessions, in four turns
