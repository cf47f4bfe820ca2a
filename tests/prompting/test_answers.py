"""Bundles and answer text: one canonical spelling out, anything at all in."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kdjax.prompting import ANSWER_MARKER, answer_text, parse_answer

N = 12
bundle = st.sets(st.integers(0, N - 1), min_size=2).map(lambda items: tuple(sorted(items)))
bundles = st.sets(bundle, min_size=1, max_size=6).map(lambda found: tuple(sorted(found)))
like_an_answer = st.text(alphabet="[],. 0123456789\n-product", max_size=60)


@pytest.mark.parametrize(
    ("given_bundles", "text"),
    [
        (((0, 2), (1, 4)), "[[1,3],[2,5]]"),
        (((4, 1), (2, 0)), "[[1,3],[2,5]]"),  # any order of items and of bundles
        (((0, 9), (0, 1)), "[[1,2],[1,10]]"),  # numbers ascend as numbers, not as text
        (((0, 1, 2), (0, 1)), "[[1,2],[1,2,3]]"),
        ((), "[]"),
    ],
)
def test_answer_text_by_hand(given_bundles, text):
    assert answer_text(given_bundles) == text


@given(bundles, st.randoms(use_true_random=False))
def test_one_answer_has_one_spelling(found, random):
    shuffled = [tuple(random.sample(items, len(items))) for items in random.sample(found, len(found))]
    assert answer_text(shuffled) == answer_text(found)


@given(bundles)
def test_what_is_written_is_read(found):
    parsed = parse_answer(answer_text(found), N)
    assert parsed.bundles == tuple(tuple(item + 1 for item in items) for items in found)
    assert parsed.valid
    assert parsed.out_of_range == 0


@pytest.mark.parametrize(
    ("text", "found", "valid", "out_of_range"),
    [
        # valid: a list of lists, whatever the white space
        ("[[1,3],[2,5]]", ((1, 3), (2, 5)), True, 0),
        (" [ [1, 3] ,\n[2 ,5] ]\n", ((1, 3), (2, 5)), True, 0),
        ("[[5,2]]", ((5, 2),), True, 0),
        ("[[1,2],[1,2]]", ((1, 2), (1, 2)), True, 0),  # a repeated bundle is kept, the metrics count it
        # not valid, but bundles are named
        ("[1,2]", ((1, 2),), False, 0),
        ("[[1,2]", ((1, 2),), False, 0),
        ("[[1,2],]", ((1, 2),), False, 0),
        ("[[1,2][3,4]]", ((1, 2), (3, 4)), False, 0),
        ("[[1,2]] and that is all", ((1, 2),), False, 0),
        ("The answer is [[1,2],[3,4]].", ((1, 2), (3, 4)), False, 0),
        ("1: [3, 4]\n2: [5, 6]", ((3, 4), (5, 6)), False, 0),
        ("[[1]]", ((1,),), False, 0),
        ("[[1,1]]", ((1, 1),), False, 0),
        ("[[1,2],[]]", ((1, 2),), False, 0),
        ("[[[1,2]],[3,4]]", ((1, 2), (3, 4)), False, 0),
        # products in words; the predecessor's code reads the last character alone
        ("{'bundle1': ['product1', 'product10']}", ((1, 10),), False, 0),
        ("[product 3 and product 12]", ((3, 12),), False, 0),
        # numbers that name no product
        ("[[1,2,13]]", ((1, 2),), False, 1),
        ("[[0,1,2]]", ((1, 2),), False, 1),
        ("[[99,100],[1,2]]", ((1, 2),), False, 2),
        ("[[1,2,12345678901]]", ((1, 2),), False, 1),
        ("[[1,2],[12345678901234567890]]", ((1, 2),), False, 1),
        ("[[1,2,1" + "0" * 5000 + "]]", ((1, 2),), False, 1),
        ("[[1.5,2]]", ((2,),), False, 0),
        # no answer
        ("", (), False, 0),
        ("[]", (), False, 0),
        ("[[]]", (), False, 0),
        ("I cannot do that.", (), False, 0),
        ("1, 2 and 3", (), False, 0),
        ("[[1,2", (), False, 0),
    ],
)
def test_parse_answer_by_hand(text, found, valid, out_of_range):
    parsed = parse_answer(text, N)
    assert (parsed.bundles, parsed.valid, parsed.out_of_range) == (found, valid, out_of_range)


def test_the_last_marker_begins_the_answer():
    thought = f"[1,2] look alike. {ANSWER_MARKER} [[5,6]]? No.\n{ANSWER_MARKER} [[1,3],[2,4]]"
    parsed = parse_answer(thought, N)
    assert parsed.bundles == ((1, 3), (2, 4))
    assert parsed.valid


def test_the_range_is_the_sessions():
    assert parse_answer("[[1,3]]", 3).valid
    assert parse_answer("[[1,3]]", 2).bundles == ((1,),)


@given(st.one_of(st.text(), like_an_answer), st.integers(0, 20))
@example("[" * 5000, 5)
@example("[[" + "1," * 5000, 5)
@example("[[" + "1" * 5000 + ".5]]", 5)
@example("[[1,2]" + " " * 5000 + "x", 5)
@example("[[١,٢]]", 5)  # digits of another script
def test_no_text_raises(text, n_items):
    parsed = parse_answer(text, n_items)
    for named in parsed.bundles:
        assert named
        assert all(1 <= number <= n_items for number in named)


@given(like_an_answer)
@example("[[1,2][3,4]]")
@example("[[1,2],[99999999999]]")
def test_valid_means_a_json_list_of_lists_of_distinct_products(text):
    parsed = parse_answer(text, N)
    if parsed.valid:
        written = json.loads(text)
        assert tuple(tuple(items) for items in written) == parsed.bundles
        assert all(len(items) >= 2 and len(set(items)) == len(items) for items in written)
        assert all(1 <= item <= N for items in written for item in items)
