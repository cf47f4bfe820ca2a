"""Sessions that the teacher has no answer about are left out, as long as they are not most of them."""

import pytest
from knowledge_helpers import ScriptedTeacher, make_session, words

from kdjax.errors import InputError
from kdjax.knowledge import aicl, reflect, think
from kdjax.teacher import NoAnswer

SESSIONS = [make_session(name, ("HDMI cable", "Television", f"Teapot {name}")) for name in "abcd"]
RULE = "Cables go with what they connect."


class Failing(ScriptedTeacher):
    """Has no answer where the conversation holds one of `without`, from its n-th turn on."""

    def __init__(self, reply, without, turn=1):
        super().__init__(reply)
        self.without, self.turn = without, turn

    def _answer(self, number, call):
        turn = (len(call.conversation) + 1) // 2
        if turn >= self.turn and any(f"Teapot {name}" in call.conversation[0][1] for name in self.without):
            return NoAnswer("its thinking used up all its tokens")
        return super()._answer(number, call)


def reply(conversation):
    return RULE if "rules" in conversation[-1][1] else "[[1,3]]"


def reflected(without, turn=1):
    teacher, lines = Failing(reply, without, turn), []
    rules = reflect(SESSIONS, teacher, max_new_tokens=9, log=lines.append)
    return teacher, [rule.session for rule in rules], lines


@pytest.mark.parametrize("turn, asked", [(1, [4, 3, 3, 3]), (2, [4, 4, 3, 3]), (3, [4, 4, 4, 3]), (4, [4, 4, 4, 4])])
def test_a_reflection_ends_where_a_turn_has_no_answer(turn, asked):
    teacher, sessions, lines = reflected("b", turn)
    assert sessions == ["a", "c", "d"] and [len(batch) for batch in teacher.asked] == asked
    told = "reflection: 1 of 4 sessions are left out, without an answer of the teacher: its thinking used up all its tokens"
    assert told in lines
    assert not any("(no answer)" in text for batch in teacher.asked for call in batch for _, text in call.conversation)


def test_half_of_the_sessions_are_enough_and_fewer_are_an_error():
    assert reflected("bd")[1] == ["a", "c"]
    with pytest.raises(InputError, match="reflection: the teacher has no answer about 3 of 4 sessions.*used up"):
        reflected("bcd")
    assert not any("left out" in line for line in reflected("")[2])


def test_most_sessions_may_not_be_lost_over_all_turns():
    teacher = Failing(reply, "b")
    teacher._answer = lambda number, call: (
        NoAnswer("nothing")
        if len(call.conversation) // 2 == "abcd".index(call.conversation[0][1].partition("Teapot ")[2][0])
        else ScriptedTeacher._answer(teacher, number, call)
    )
    with pytest.raises(InputError, match="3 of 4 sessions"):
        reflect(SESSIONS, teacher, max_new_tokens=9, log=lambda line: None)


def thoughts(without):
    lines = []
    teacher = Failing(lambda conversation: "Both show films.", without)
    cards = think(SESSIONS, teacher, "demo", max_new_tokens=9, count_tokens=words, log=lines.append)
    return [card.sessions[0] for card in cards], lines


def test_thoughts_are_of_the_sessions_that_have_an_answer():
    cards, lines = thoughts("ac")
    assert cards == ["b", "d"] and "thoughts: 2 of 4 sessions are left out" in lines[0]
    assert thoughts("") == (["a", "b", "c", "d"], [])
    with pytest.raises(InputError, match="thoughts: the teacher has no answer about 3 of 4"):
        thoughts("abc")


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_dialogue_of_aicl_ends_where_a_turn_has_no_answer(turn):
    neighbour = make_session("n", ("HDMI cable", "Television", "Kettle"))
    pairs = [
        (session, make_session(f"n{session.id}", ("Cable", "Screen", f"Teapot {session.id}"))) for session in SESSIONS
    ]
    pairs.append((SESSIONS[0], neighbour))
    lines: list[str] = []
    teacher = Failing(lambda conversation: "[[1,3]]", "b", turn)
    dialogues = aicl(pairs, teacher, max_new_tokens=9, log=lines.append)
    assert [one.text != "" for one in dialogues] == [True, False, True, True, True]
    assert any(line.startswith("AICL: 1 of 5 sessions are left out") for line in lines)
    assert "AICL: 0 of 5 dialogues ended on products that are not there" in lines
