"""The byte automata against direct definitions of what an answer is; no tokenizer, no model."""

import json
from itertools import combinations, product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kdjax.decoding.language import DONE, AfterMarker, ItemsLanguage, JsonLanguage, Padded
from kdjax.prompting import ANSWER_MARKER, answer_text, parse_answer


def accepts(language, text: bytes) -> bool:
    state = language.start
    for byte in text:
        step = language.step(state, byte)
        if step is None:
            return False
        state = step[0]
    return state == DONE


def spelt(language, alphabet: bytes, longest: int) -> dict[str, int]:
    """Every accepted text of at most `longest` bytes, with how many bundles were counted on the way, the first included."""
    found, waiting = {}, [(language.start, "", 1)]
    while waiting:
        state, text, count = waiting.pop()
        if state == DONE:
            found[text] = count
        for byte in alphabet if len(text) < longest else ():
            step = language.step(state, byte)
            if step is not None:
                waiting.append((step[0], text + chr(byte), count + step[1]))
    return found


def compact(value) -> str:
    return json.dumps(value, separators=(",", ":"))


def answers(bundles: list[tuple[int, ...]], longest: int) -> dict[str, int]:
    """Every list of these bundles whose compact JSON has at most `longest` characters, with its size."""
    texts, size = {}, 1
    while fresh := {text: size for chosen in product(bundles, repeat=size) if len(text := compact(chosen)) <= longest}:
        texts |= fresh
        size += 1
    return texts


@pytest.mark.parametrize(("n_items", "longest"), [(2, 19), (3, 14), (4, 15), (11, 9)])
def test_items_are_ascending_distinct_in_range_and_two_or_more(n_items, longest):
    numbers, sizes = range(1, n_items + 1), range(2, min(n_items, 4) + 1)
    bundles = [
        bundle for size in sizes for bundle in combinations(numbers, size) if len(compact(bundle)) <= longest - 2
    ]
    assert spelt(ItemsLanguage(n_items), b"[],0123456789 ", longest) == answers(bundles, longest)


@st.composite
def nearly_answers(draw):
    """A number of products, and an answer about them of which a few characters may have been changed, taken out or put in."""
    n_items = draw(st.integers(2, 120))
    bundles = st.lists(st.lists(st.integers(0, n_items), min_size=1, max_size=4), min_size=1, max_size=3)
    text = compact([[item + 1 for item in bundle] for bundle in draw(bundles)])
    if draw(st.booleans()):
        text = compact([sorted(set(bundle)) for bundle in json.loads(text)])
    for _ in range(draw(st.integers(0, 2))):
        at, new = draw(st.integers(0, len(text))), draw(st.sampled_from(["", *"[],0123456789 "]))
        text = text[:at] + new + text[at + draw(st.integers(0, 1)) :]
    return n_items, text


@given(nearly_answers())
@example((12, "[[1,3],[2,12]]"))
@example((12, "[[1,3],[2,13]]"))
@example((12, "[[01,3]]"))
def test_the_automaton_accepts_what_the_parser_calls_valid_in_its_one_spelling(given_answer):
    n_items, text = given_answer
    answer = parse_answer(text, n_items)
    ascending = all(list(bundle) == sorted(bundle) for bundle in answer.bundles)
    expected = answer.valid and ascending and text == compact(answer.bundles)
    assert accepts(ItemsLanguage(n_items), text.encode()) == expected
    assert not accepts(ItemsLanguage(n_items), text.encode()) or accepts(JsonLanguage(), text.encode())


def test_one_product_makes_no_bundle():
    assert spelt(ItemsLanguage(1), b"[],0123456789", 12) == {}


def test_json_is_any_list_of_lists_of_positive_numbers():
    numbers = [number for number in range(1, 1112) if set(str(number)) <= set("01")]
    bundles = [bundle for size in (1, 2, 3) for bundle in product(numbers, repeat=size) if len(compact(bundle)) <= 7]
    assert spelt(JsonLanguage(), b"[],01 -.", 9) == answers(bundles, 9)
    assert accepts(JsonLanguage(), b"[[9999]]") and not accepts(JsonLanguage(), b"[[10000]]")


MARKED = AfterMarker(ANSWER_MARKER.encode(), ItemsLanguage(3))


@pytest.mark.parametrize(
    "free", ["", "\n", "Two charge, one protects.\n", "Bundle", "BBundl", "Bundles;", "[[1]] ", "é\x00"]
)
def test_free_text_ends_at_the_marker(free):
    assert accepts(MARKED, f"{free}Bundles: [[1,3]]".encode())
    assert not accepts(MARKED, f"{free}[[1,3]]".encode())


@pytest.mark.parametrize("answer", ["[[3,1]]", "[[1,4]]", "x[[1,3]]", "Bundles: [[1,3]]", "\n[[1,3]]"])
def test_the_first_marker_binds(answer):
    assert not accepts(MARKED, f"Because.\nBundles: {answer}".encode())


def test_the_space_of_a_training_target_may_be_left_out():
    """`training_example` writes "Bundles: [[1,3]]"."""
    assert accepts(MARKED, f"{ANSWER_MARKER} {answer_text([(0, 2)])}".encode())
    assert accepts(MARKED, f"{ANSWER_MARKER}{answer_text([(0, 2)])}".encode())
    assert not accepts(MARKED, f"{ANSWER_MARKER}  {answer_text([(0, 2)])}".encode())


@pytest.mark.parametrize("inner", [ItemsLanguage(3), JsonLanguage()], ids=["items", "json"])
@pytest.mark.parametrize(
    ("before", "after"), [("", ""), (" ", ""), ("", " "), (" ", " "), ("\n\n", "\n "), (" ", "[]")]
)
def test_what_a_template_writes_around_an_answer(before, after, inner):
    """Before it, all or nothing; after it, all."""
    padded = Padded(before.encode(), inner, after.encode())
    plain = spelt(inner, b"[],123", 9)
    assert plain
    length = 9 + len(before) + len(after)
    expected = {left + text + after: count for text, count in plain.items() for left in {"", before}}
    found = spelt(padded, b"[],123 \n", length)
    assert expected.items() <= found.items()
    for text, count in found.items():
        assert text.endswith(after)
        answer = text.removesuffix(after)
        answer = answer.removeprefix(before) if answer[:1].isspace() else answer
        assert accepts(inner, answer.encode())
        assert count == answer.count("],") + 1


def test_a_marker_and_what_the_template_writes_after_an_answer():
    marked = AfterMarker(ANSWER_MARKER.encode(), Padded(b"", ItemsLanguage(3), b" "))
    for answer, accepted in {" [[1,3]] ": True, "[[1,3]] ": True, " [[1,3]]": False, "  [[1,3]] ": False}.items():
        assert accepts(marked, f"Because.\n{ANSWER_MARKER}{answer}".encode()) == accepted
