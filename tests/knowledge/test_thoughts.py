from hypothesis import given
from hypothesis import strategies as st
from knowledge_helpers import ScriptedTeacher, make_session, words

from kdjax.knowledge import annotation_thoughts, think
from kdjax.knowledge.thoughts import thought_text
from kdjax.prompting.answers import ANSWER_MARKER

SESSION = make_session("s1", bundles=((0, 1),))


def think_one(reply, session=SESSION):
    cards = think([session], ScriptedTeacher(lambda conversation: reply), "demo", max_new_tokens=50, count_tokens=words)
    return cards[0] if cards else None


def test_one_card_per_session_that_has_bundles():
    sessions = [SESSION, make_session("s2", bundles=()), make_session("s3", bundles=((0, 2), (1, 2)))]
    teacher = ScriptedTeacher(lambda conversation: f"  Because.\n{len(conversation[0][1])} ")
    cards = think(sessions, teacher, "demo", max_new_tokens=50, count_tokens=words)
    assert [card.sessions for card in cards] == [("s1",), ("s3",)]
    assert [card.calls for card in cards] == [("1.0",), ("1.1",)]
    assert len(teacher.asked) == 1
    prompt = teacher.asked[0][1].conversation[0][1]
    assert "3. Teapot" in prompt
    assert "[[1,3],[2,3]]" in prompt
    assert cards[0].text.startswith("Because. ")
    assert cards[0].tokens == 2


def test_no_session_asks_nothing():
    teacher = ScriptedTeacher(lambda conversation: "")
    assert think([], teacher, "demo", max_new_tokens=5, count_tokens=words) == []
    assert teacher.asked == []


def test_checks_finished_and_the_named_bundles():
    assert think_one("Products 1 and 2 show films.").checks == {"finished": True, "names_answer": True}
    assert think_one("Products [2, 1] show films.").checks["names_answer"]
    assert not think_one("Products 1, 2 and 3 show films.").checks["names_answer"]
    assert not think_one("The iPad 1 and a cable for 2.").checks["names_answer"]
    both = make_session("s", ("a", "b", "c", "d", "e"), ((0, 1, 2), (3, 4)))
    assert think_one("1, 2, and 3 are toys. The film 4 fits the player 5.", both).checks["names_answer"] is False
    assert think_one("1, 2, and 3 are toys. 4 and 5 too.", both).checks["names_answer"] is True


def test_a_cut_off_thought_ends_with_its_last_whole_sentence():
    card = think_one(("1. The cable joins both.\n2. The tele", "length"))
    assert card.text == "1. The cable joins both."
    assert card.checks["finished"] is False
    assert think_one(("The cable joins the tele", "length")).text == "The cable joins the tele"
    assert think_one("The cable joins. Both").text == "The cable joins. Both"


def test_the_answer_is_not_part_of_the_thought():
    assert thought_text("They go together.\n\nBundles: [[1,3], [2,4]]") == "They go together."
    assert thought_text("Bundles: 1 and 3 go together.") == "Bundles 1 and 3 go together."
    assert think_one(" \n Bundles: [[1,2]]") is None


pieces = st.sampled_from(["Bundles", "bundles", ":", " ", "\n", "[[1,2]]", "[", "]", "1", "text.", ANSWER_MARKER])


@given(st.lists(pieces, max_size=12).map("".join))
def test_a_thought_is_one_line_without_the_marker(text):
    thought = thought_text(text)
    assert ANSWER_MARKER not in thought
    assert thought == " ".join(thought.split())


def test_annotation_thoughts_name_the_answer():
    sessions = [make_session("a", intents=["watch films"]), make_session("b", bundles=())]
    (card,) = annotation_thoughts(sessions, "demo", count_tokens=words)
    assert "watch films" in card.text
    assert (card.sessions, card.calls, card.support) == (("a",), (), 1)
    assert card.checks == {"finished": True, "names_answer": True}
