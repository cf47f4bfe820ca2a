"""The predecessor's dialogue, with a scripted model."""

import pytest
from knowledge_helpers import ScriptedTeacher, make_session

from kdjax.knowledge import aicl

NEIGHBOUR = make_session("near", ("Phone", "Phone case", "Kettle", "Tea"), ((0, 1), (2, 3)))
ASKED = make_session("asked", ("Mug", "Teapot", "Hose"), ((0, 1),))
WORDS = {
    "intent of each bundle": "A phone, well kept",
    "rules help": "Cases go with phones.",
    "other products": "[[1,2]]",
}


def scripted(*neighbours):
    """A model that says these bundles of the neighbour, one after the other, and WORDS to the rest."""

    def reply(conversation):
        last = conversation[-1][1]
        for part, answer in WORDS.items():
            if part in last:
                return answer
        asks = ("form bundles", "adjust", "Of your bundles")
        said = sum(any(part in text for part in asks) for role, text in conversation if role == "user")
        return neighbours[min(said, len(neighbours)) - 1]

    return ScriptedTeacher(reply)


def hold(teacher):
    [dialogue] = aicl([(ASKED, NEIGHBOUR)], teacher, max_new_tokens=9, log=lambda line: None)
    return dialogue, [text for role, text in dialogue.turns if role == "user"]


def test_a_right_answer_needs_no_feedback():
    dialogue, said = hold(scripted("[[1,2],[3,4]]"))
    assert dialogue.text == "[[1,2]]" and dialogue.intents == "A phone, well kept"
    assert len(said) == 6 == len(dialogue.answers)
    assert "3. Kettle" in said[0] and "3. Hose" in said[-2] and "rules" in said[3]
    assert not any("Of your bundles" in text for text in said)


@pytest.mark.parametrize(
    "answer, hint",
    [
        ("[[1,3]]", "- [1, 3] holds products that do not belong: remove them."),
        ("[[1,2],[4]]", "- [1, 2] is right: keep it.\n- [4] is one product: a bundle has at least two related ones."),
        ("none", "- There are none: name at least one"),
    ],
)
def test_feedback_names_the_type_and_not_the_truth(answer, hint):
    dialogue, said = hold(scripted(answer, answer, "[[1,2],[3,4]]"))
    [feedback] = [text for text in said if "Of your bundles" in text]
    assert hint in feedback and "[3, 4]" not in feedback and dialogue.text == "[[1,2]]"


def test_what_misses_or_is_wrong_is_told_so():
    three = make_session("near", ("A", "B", "C", "D"), ((0, 1, 2),))
    teacher = scripted("[[1,2],[4]]")
    aicl([(ASKED, three)], teacher, max_new_tokens=9, log=lambda line: None)
    feedback = teacher.asked[3][0].conversation[-1][1]
    assert "- [1, 2] misses related products: append them." in feedback and "- [4] is invalid: remove it." in feedback


def test_feedback_ends_after_four_rounds():
    dialogue, said = hold(scripted("[[1,3]]"))
    assert sum("Of your bundles" in text for text in said) == 4 and dialogue.text == "[[1,2]]"


@pytest.mark.parametrize("answers", [("[[1,9]]",), ("[[1,2]]", "[[1,9]]"), ("[[1,3]]", "[[1,3]]", "[[7,8]]")])
def test_a_product_that_is_not_there_ends_the_dialogue(answers):
    dialogue, said = hold(scripted(*answers))
    assert dialogue.text == "" and not any("rules help" in text for text in said)


def test_dialogues_take_each_turn_together():
    teacher = scripted("[[1,2],[3,4]]")
    aicl([(ASKED, NEIGHBOUR), (ASKED, NEIGHBOUR)], teacher, max_new_tokens=9, log=lambda line: None)
    assert [len(batch) for batch in teacher.asked] == [2] * 6


def test_no_session_asks_nothing():
    teacher = scripted("")
    assert aicl([], teacher, max_new_tokens=9, log=lambda line: None) == [] and teacher.asked == []


def test_intents_are_named_anew_where_the_correction_changed_bundles():
    for corrected, times in (("[[4,3],[1,2]]", 2), ("[[1,2]]", 2), ("[[1,2],[1,3]]", 3)):
        dialogue, said = hold(scripted("[[1,2],[3,4]]", corrected))
        assert sum("intent of each bundle" in text for text in said) == times
        assert dialogue.intents == "A phone, well kept"


def test_where_no_bundle_is_named_there_are_no_intents():
    teacher = scripted("[[1,2],[3,4]]")
    answer = teacher.reply
    teacher.reply = lambda conversation: "none" if "other products" in conversation[-1][1] else answer(conversation)
    dialogue, said = hold(teacher)
    assert dialogue.text == "none" and dialogue.intents == "" and "other products" in said[-1]
