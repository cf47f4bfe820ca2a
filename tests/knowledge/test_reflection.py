from knowledge_helpers import ScriptedTeacher, make_session

from kdjax.knowledge import RuleCandidate, reflect

RIGHT, WRONG = make_session("right"), make_session("wrong", ("Phone", "Phone case", "Kettle", "Tea"), ((0, 1), (2, 3)))
RULES = """1. Cables go with what they connect.
2. Do not bundle kitchen and phone.
3. Two of a kind are one bundle.
4. Bundle products by their room."""


def reply(conversation):
    first, last = conversation[0][1], conversation[-1][1]
    if len(conversation) == 1:
        return "Bundles: [[1,2]]" if "Teapot" in first else "[[1,2,3]]"
    return RULES if "rules" in last else "The kettle is for the kitchen."


def test_four_turns_of_which_a_right_answer_needs_two():
    teacher = ScriptedTeacher(reply)
    candidates = reflect([RIGHT, WRONG], teacher, max_new_tokens=40, log=lambda line: None)
    assert [len(batch) for batch in teacher.asked] == [2, 1, 1, 2]
    assert all(call.max_new_tokens == 40 for batch in teacher.asked for call in batch)
    assert [(rule.session, rule.calls) for rule in candidates[::3]] == [
        ("right", ("1.0", "4.0")),
        ("wrong", ("1.1", "2.0", "3.0", "4.1")),
    ]
    assert len(candidates) == 6  # at most three rules a session
    assert candidates[0] == RuleCandidate("Cables go with what they connect.", "right", ("1.0", "4.0"))


def test_the_conversation_holds_products_comparison_and_all_answers():
    teacher = ScriptedTeacher(reply)
    reflect([RIGHT, WRONG], teacher, max_new_tokens=40, log=lambda line: None)
    long = teacher.asked[3][1].conversation
    assert [role for role, _ in long] == ["user", "assistant"] * 3 + ["user"]
    assert "3. Kettle" in long[0][1]
    assert long[1] == ("assistant", "[[1,2,3]]")
    assert "[1, 2, 3] has products that do not belong (3): the bundle is [1, 2]." in long[2][1]
    assert "The bundle [3, 4] was not found." in long[2][1]
    assert long[:5] == teacher.asked[2][0].conversation
    short = teacher.asked[3][0].conversation
    assert short[-1][1].startswith("Your answer is right.")


def test_an_empty_answer_keeps_the_turns_alternating():
    teacher = ScriptedTeacher(lambda conversation: ("", "length"))
    lines = []
    assert reflect([WRONG], teacher, max_new_tokens=4, log=lines.append) == []
    assert teacher.asked[3][0].conversation[1] == ("assistant", "(no answer)")
    assert lines[-1] == "reflection: 0 rules"


def test_dropped_lines_are_logged_by_reason():
    teacher = ScriptedTeacher(
        lambda c: "[[1,2]]" if len(c) == 1 else ("Product 1 goes with 2.\nWhy so?\nBundle products", "length")
    )
    lines = []
    assert reflect([RIGHT], teacher, max_new_tokens=4, log=lines.append) == []
    assert lines[-1] == "reflection: 0 rules; lines dropped: 1 cut off, 1 product number, 1 question"


def test_no_session_asks_nothing():
    teacher = ScriptedTeacher(reply)
    assert reflect([], teacher, max_new_tokens=4, log=lambda line: None) == []
    assert teacher.asked == []
