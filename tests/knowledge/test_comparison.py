import pytest

from kdjax.knowledge.comparison import Finding, compare, feedback, is_right
from kdjax.prompting.answers import parse_answer

TRUTH = ((0, 1, 2), (3, 4))


@pytest.mark.parametrize(
    ("answer", "finding"),
    [
        ("[[3,2,1]]", Finding("right", (1, 2, 3), (1, 2, 3))),
        ("[[6,7]]", Finding("wrong", (6, 7))),
        ("[[1,2,6]]", Finding("irrelevant", (1, 2, 6), (1, 2, 3), (6,))),
        ("[[1,2,3,6]]", Finding("irrelevant", (1, 2, 3, 6), (1, 2, 3), (6,))),
        ("[[1,2]]", Finding("missing", (1, 2), (1, 2, 3), (3,))),
        ("[[5]]", Finding("single", (5,), (4, 5))),
        ("[[3,4]]", Finding("irrelevant", (3, 4), (4, 5), (3,))),  # Jaccard 1/3 with the second, 1/4 with the first
    ],
)
def test_a_bundle_is_typed_by_its_nearest_truth(answer, finding):
    assert compare(parse_answer(answer, 7), TRUTH)[0] == finding


def test_missed_and_out_of_range_come_last_and_repeats_once():
    findings = compare(parse_answer("[[1,2,3],[3,2,1],[8,9]]", 7), TRUTH)
    assert findings == (
        Finding("right", (1, 2, 3), (1, 2, 3)),
        Finding("missed", truth=(4, 5)),
        Finding("out_of_range"),
    )
    assert not is_right(findings)


def test_nothing_to_correct():
    assert is_right(compare(parse_answer("[[4,5],[1,2,3]]", 7), TRUTH))
    assert not is_right(compare(parse_answer("I cannot tell.", 7), TRUTH))
    assert not is_right(compare(parse_answer("[[1,2]]", 7), ()))


def test_feedback_tells_every_finding_with_the_true_bundle():
    told = feedback(compare(parse_answer("[[1,2],[3,4],[6,7],[5],[9]]", 7), TRUTH)).splitlines()
    assert told == [
        "- [1, 2] misses products (3): the bundle is [1, 2, 3].",
        "- [3, 4] has products that do not belong (3): the bundle is [4, 5].",
        "- [6, 7] is wrong: none of these products is in a bundle.",
        "- [5] is only one product: the bundle is [4, 5].",
        "- Your answer names products that are not in the list.",
    ]
    assert feedback(compare(parse_answer("[[4,5]]", 7), TRUTH)).splitlines() == [
        "- [4, 5] is right.",
        "- The bundle [1, 2, 3] was not found.",
    ]
