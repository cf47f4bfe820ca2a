"""Which teacher calls are still to be made; the endpoint is a local server without a model."""

from dataclasses import replace

import pytest
from http_stand_in import Server, answer_to

from configs import aicl as aicl_config
from configs.sft_rules import get_config
from kdjax.data import load_domain
from kdjax.reporting import RunLog
from kdjax.study.calls import Calls, calls, conversations
from kdjax.study.distil import distil, open_config_teacher
from kdjax.study.grid import Run

DOMAINS = {"demo": load_domain("demo", "", "demo")}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        server.answer = answer_to
        yield server


@pytest.fixture
def run(server, tmp_path):
    """A run with this teacher in a folder of its own; the teacher's cache is the same for all."""

    def run(name: str, config=None, **fields) -> Run:
        config = config or get_config("smoke")
        config.teacher.update(kind="http", source="tiny", url=server.url, cache_dir=str(tmp_path / "cache"))
        config.update_from_flattened_dict({field.replace("__", "."): value for field, value in fields.items()})
        return Run(0, config, tmp_path / name)

    return run


def count(*cells):
    return calls([[(one, DOMAINS) for one in cell] for cell in cells])


def teach(one: Run) -> None:
    with RunLog(one.folder) as log:
        distil(one.config, DOMAINS, DOMAINS, {"demo": {}}, one.folder, len, log)


def test_before_anything_is_asked_all_is_to_come_and_nobody_knows_how_long(run, server):
    first = run("first", knowledge__reflections=8)
    assert count([first]) == [Calls(to_come=8 * 4, unknown=8 * 4)] and not server.seen


def test_what_is_recorded_is_told_by_its_last_turn(run, server):
    teach(run("first", knowledge__reflections=3))
    asked = len(server.seen)
    [found] = count([run("second", knowledge__reflections=8)])
    assert found.recorded == asked and found.to_come == 5 * 4 and found.unknown == 0 < found.seconds
    assert len(server.seen) == asked


def test_what_runs_share_counts_with_the_first(run):
    more, fewer = run("more", knowledge__reflections=8), run("fewer", knowledge__reflections=3)
    longer = run("longer", knowledge__reflections=3, knowledge__max_new_tokens=9)
    assert [one.to_come for one in count([more, fewer], [fewer], [longer])] == [32, 0, 12]


def test_cards_on_disk_and_cells_without_a_teacher_ask_nothing(run):
    one = run("first")
    teach(one)
    untaught = run("other", knowledge__formats=("patterns",))
    statistics = run("statistics")
    statistics.config.teacher.kind = "annotations"
    assert count([one, untaught, statistics]) == [Calls()]


def test_thoughts_are_a_call_for_each_session(run):
    one = run("first", knowledge__formats=("thoughts",), knowledge__thoughts=5)
    assert count([one]) == [Calls(to_come=5, unknown=5)]


def test_dialogues_of_aicl_are_replayed_too(run, server):
    one = run("aicl", aicl_config.get_config("smoke"), eval__max_sessions=2)
    [before] = count([one])
    assert before.to_come == before.unknown and before.to_come % 2 == 0
    with open_config_teacher(one.config, print) as teacher:
        for dialogue in conversations(one, DOMAINS):
            dialogue.hold(teacher.ask)
    asked = len(server.seen)
    [after] = count([one])
    assert (after.recorded, after.to_come) == (asked, 0) and len(server.seen) == asked
    encoded = one.config.copy_and_resolve_references()
    encoded.prompting.encoder = "read-later"
    assert count([replace(one, config=encoded)])[0].to_come == before.to_come
