from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.teacher.journal import Journal

ENTRIES = [{"text": 'one\n"é"'}, {"numbers": [0.1, 2, float("-inf")]}, {}]


def test_entries_come_back_in_order(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.read() == []
    for entry in ENTRIES:
        journal.append(entry)
    assert Journal(journal.path).read() == ENTRIES
    journal.remove()
    assert journal.read() == []


@settings(max_examples=40)
@given(cut=st.integers(0, 80))
def test_a_torn_tail_is_forgotten_and_cut_off(tmp_path_factory, cut):
    journal = Journal(tmp_path_factory.mktemp("torn") / "journal.jsonl")
    ends = [0]
    for entry in ENTRIES:
        journal.append(entry)
        ends.append(journal.path.stat().st_size)
    content = journal.path.read_bytes()
    cut = min(cut, len(content))
    journal.path.write_bytes(content[:cut])
    whole = sum(end <= cut for end in ends) - 1
    assert journal.read() == ENTRIES[:whole]
    journal.repair((), Path("nowhere"))
    journal.append({"after": cut})
    assert journal.read() == [*ENTRIES[:whole], {"after": cut}]


@pytest.mark.parametrize(
    "damage", [b"{", b"", b"[]", b"\x00\xff", b'{"entry": [], "sha256": ""}', b'{"text": "no sum"}']
)
def test_a_damaged_line_is_no_entry_and_is_moved_aside(tmp_path, damage):
    journal, aside = Journal(tmp_path / "journal.jsonl"), tmp_path / "aside"
    journal.append(ENTRIES[0])
    journal.path.write_bytes(journal.path.read_bytes() + damage + b"\n")
    journal.append(ENTRIES[1])
    assert journal.read() == [ENTRIES[0], None, ENTRIES[1]]
    journal.repair({1}, aside)
    assert journal.read() == ENTRIES[:2] and aside.read_bytes() == damage + b"\n"
    journal.repair({0}, aside)
    assert journal.read() == ENTRIES[1:2] and aside.read_bytes().startswith(damage + b"\n{")


@settings(max_examples=60)
@given(where=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_gives_no_other_entry(tmp_path_factory, where, bit):
    journal = Journal(tmp_path_factory.mktemp("flipped") / "journal.jsonl")
    for entry in ENTRIES:
        journal.append(entry)
    content = bytearray(journal.path.read_bytes())
    content[where % len(content)] ^= 1 << bit
    journal.path.write_bytes(content)
    found = [entry for entry in journal.read() if entry is not None]
    assert [entry for entry in ENTRIES if entry in found] == found and len(found) >= len(ENTRIES) - 2
