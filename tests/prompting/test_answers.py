"""Bundles and answer text: one canonical spelling out, anything at all in."""

import json
import time

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


LINES = "Bundle 1: 1, 2\nBundle 2: 3, 4"
TWO = ((1, 2), (3, 4))
# nearly the right form: text → its bundles; none of them is valid
NEAR = {
    # tuples, sets and texts in a list, or by themselves
    "[(1, 2), (3, 4)]": TWO,
    "((1,2),(3,4))": TWO,
    "[[(1, 2)], [(3, 4)]]": TWO,
    "[{1, 2}, {3, 4}]": TWO,
    "{(1, 2), (3, 4)}": TWO,
    "frozenset({1, 2}), frozenset({3, 4})": TWO,
    "{1, 2}": ((1, 2),),
    "[(1, 2), (3,)]": ((1, 2), (3,)),
    '{"bundles": ["1, 2", "3,4"]}': TWO,
    "[1 (cable), 3 (TV)]": ((1, 3),),
    "['1', '2']": ((1, 2),),
    "(1 and 2), (3 & 4)": TWO,
    "[[1.0, 2.0], [3.0,4.0]]": TWO,
    "[1: USB 2.0 hub, 3: 1.0 m]": ((1, 3),),
    # ranges
    "[1-2, 3-4]": TWO,
    "[[1-2, 4-5]]": ((1, 2, 4, 5),),
    "[1-2, 4-5], [6-7, 9]": ((1, 2, 4, 5), (6, 7, 9)),
    "[[1,...,4]]": ((1, 2, 3, 4),),
    "[[1, 3, …, 5, 7]]": ((1, 3, 4, 5, 7),),
    "[[1-3]]": ((1, 2, 3),),
    "[[1–3, 7], [4 to 6]]": ((1, 2, 3, 7), (4, 5, 6)),
    "[[3-1]]": ((3, 1),),
    "[[-1, 2]]": ((1, 2),),
    "[[1..3]]": (),
    # remarks with lists of their own
    "[[1,2]] (I left out [3,4], which do not fit.)": ((1, 2),),
    "I looked at [5]. [[1,2],[3,4]]. [6, 7] are alone.": TWO,
    '{"bundles": [[1, 2], [3, 4]], "left out": [5, 6]}': TWO,
    '```json\n{"bundles": [\n  [1,\n   2],\n  [3, 4]\n]}\n```\nSee [5].': TWO,
    "[[1,2] (coffee), [3,4] (TV)]": TWO,
    "[[1,2]],[3,4]]": TWO,
    "[[1,2]] [3,4]": TWO,
    '[{"id": 7, "products": [1, 2]}, {"id": 8, "products": [3, 4]}]': TWO,
    "[see [note]] [1,2]": ((1, 2),),
    # a line for each bundle
    LINES: TWO,
    "**Bundle 1:** 1 and 2\n**Bundle 2** (TV): products 3, 4 (a stand)": TWO,
    "- 1, 2\n- 3 and 4": TWO,
    "* 1 & 2\n* 3 + 4.": TWO,
    "1. 1, 2\n2) 3, 4": TWO,
    "1. Bundle A: 1-3": ((1, 2, 3),),
    "Bundle 1: items 1, 2, and 4": ((1, 2, 4),),
    "Bundle 1: [1, 2]\nBundle 2: [3, 4]": TWO,
    # several on a line, and other labels
    "Bundle 1: 1, 2; Bundle 2: 3, 4": TWO,
    "Bundle 1: 1, 2, Bundle 2: 3, 4": TWO,
    "Bundle 1: 1 and 2. **Bundle 2 (TV):** 3 and 4.": TWO,
    "Bundle 1: 1, 2 Bundle 2: 3, 4": TWO,
    "Bundle [1]: [1,2]\nGroup [2]: [3, 4]": TWO,
    "Set #1: #1, #2\nSet #2: #3 and #4": TWO,
    # lines of nothing but numbers
    "1, 2\n3, 4": TWO,
    "1, 2\n\n3 and 4.\n": TWO,
    "1, 2; 3, 4": TWO,
    "1, 2\n3, 4\nare all I found": (),
    "1, 2\n3": (),
    # and what only looks like one
    "Bundle 1: 1, 2. I dropped bundle 2: it is bad": ((1, 2),),
    "I dropped Bundle 3: 5, 6": (),
    "Bundle 1: 2": (),
    "Bundle 1: 1, 2.5 kg": (),
    "- 2, 3 cables": (),
    "1. Cable, 2 m\n2. Mug, 30 cl": (),
    "1 and 3": (),
}


@pytest.mark.parametrize(("text", "found"), NEAR.items(), ids=map(repr, NEAR))
def test_answers_in_nearly_the_right_form(text, found):
    parsed = parse_answer(text, N)
    assert (parsed.bundles, parsed.valid, parsed.out_of_range) == (found, False, 0)


@pytest.mark.parametrize(
    ("text", "found", "out_of_range"),
    [
        ("[[0-2]]", ((1, 2),), 1),
        ("[[11-99]]", ((11, 12),), 1),
        ("[[13-99]]", (), 2),
        ("[(1,2),(3,13)]", ((1, 2), (3,)), 1),
    ],
)
def test_a_range_or_tuple_may_leave_the_session(text, found, out_of_range):
    parsed = parse_answer(text, N)
    assert (parsed.bundles, parsed.valid, parsed.out_of_range) == (found, False, out_of_range)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Bundles: [[1,2]]\nThese Bundles: make coffee.", ((1, 2),)),
        ("Bundles: [[1,2]]\nBundles: [[3,4]]\nMore Bundles: none.", ((3, 4),)),
        ("[[1,2]]\nThese Bundles: make coffee.", ((1, 2),)),
        ("Bundles: [[1,2]]\nBundles: []", ()),  # an answer that names nothing is one
        ("1 and 2 fit, [[5,6]] do not.\nBundles:", ()),  # cut off before its answer
        ("[1,2] fit.\nBundles: none", ()),  # what a thought speaks of is no answer
        (f"[5,6]\nBundles:\n{LINES}", TWO),
    ],
)
def test_the_last_marker_that_an_answer_follows_begins_it(text, found):
    parsed = parse_answer(text, N)
    assert (parsed.bundles, parsed.valid) == (found, False)


FORMS = {  # every way to write the same bundles
    "lists": lambda found: [list(items) for items in found],
    "tuples": lambda found: [tuple(items) for items in found],
    "sets": lambda found: ", ".join("{" + ", ".join(map(str, items)) + "}" for items in found),
    "texts": lambda found: [", ".join(map(str, items)) for items in found],
    "an object": lambda found: {"bundles": [list(items) for items in found], "note": "see [9]"},
    "objects": lambda found: {f"bundle{i}": list(items) for i, items in enumerate(found)},
    "lines": lambda found: "\n".join(f"Bundle {i}: {' and '.join(map(str, items))}" for i, items in enumerate(found)),
    "bullets": lambda found: "\n".join(f"- {', '.join(map(str, items))}" for items in found),
}


@given(bundles, st.sampled_from(list(FORMS)))
def test_a_form_does_not_change_what_is_named(found, form):
    named = tuple(tuple(item + 1 for item in items) for items in found)
    written = FORMS[form](named)
    parsed = parse_answer(written if isinstance(written, str) else repr(written), N)
    assert parsed.bundles == named and parsed.out_of_range == 0


@given(bundles, st.data())
def test_an_answer_that_breaks_off_names_its_whole_bundles(found, data):
    text = answer_text(found)
    end = data.draw(st.integers(0, len(text) - 1))
    whole = text[:end].count("]") - text[:end].endswith("]]")
    named = tuple(tuple(item + 1 for item in items) for items in found)
    assert parse_answer(text[:end], N).bundles == named[:whole]


@pytest.mark.parametrize(
    "part",
    [
        "[",
        "[[1,2]",
        "(",
        "1, ",
        "1, 2; Bundle 1",
        "1 bundle 1 ",
        "Set #",
        "1,...,",
        "1.0,",
        "[1]:",
        "bundle [1]: ",
        "1;",
        "1, 2\n",
        "(1,",
        "1 - ",
        "- ",
        "- 1, 2",
        "bundle ",
        "Bundles:",
        "*",
        "\n",
        '"1',
        "1 to ",
    ],
)
def test_no_text_takes_long(part):
    started = time.process_time()
    parse_answer(part * 20_000 + " " * 20_000 + "x", N)
    assert time.process_time() - started < 2


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
