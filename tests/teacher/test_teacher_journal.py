import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.errors import InputError
from kdjax.teacher.journal import Journal

ENTRIES = [{"text": 'one\n"é"'}, {"numbers": [0.1, 2]}, {}]


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
    journal.repair()
    journal.append({"after": cut})
    assert journal.read() == [*ENTRIES[:whole], {"after": cut}]


@pytest.mark.parametrize("damage", [b"{\n", b"\n", b"[]\n", b"\x00\xff\n"])
def test_a_broken_whole_line_is_named(tmp_path, damage):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(ENTRIES[0])
    journal.path.write_bytes(journal.path.read_bytes() + damage)
    journal.append(ENTRIES[1])
    with pytest.raises(InputError, match=r"journal\.jsonl, line 2: "):
        journal.read()
