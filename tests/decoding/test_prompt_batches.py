"""Prompts in a few lengths."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from kdjax.decoding.batches import bucket_edges, lay_out_prompts
from kdjax.prompting import Example

PAD = 2


def padded_to(lengths, edges):
    return sum(min(edge for edge in edges if edge >= length) for length in lengths)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.integers(1, 4))
def test_bucket_edges_are_the_best_of_all(lengths, count):
    edges = bucket_edges(lengths, count)
    assert edges == sorted(set(edges)) and len(edges) <= count and edges[-1] == max(lengths)
    different = sorted(set(lengths))
    every = [(*chosen, different[-1]) for k in range(count) for chosen in combinations(different[:-1], k)]
    assert padded_to(lengths, edges) == min(padded_to(lengths, chosen) for chosen in every)


def test_no_more_buckets_than_lengths():
    assert bucket_edges([8, 8, 16], 5) == [8, 16]


def test_every_prompt_is_laid_out_once_longest_first_in_the_smallest_length_that_fits():
    prompts = [Example("b", "", "", (9, *[3] * n)) for n in (20, 5, 3)] + [Example("a", "", "", (4, 5, 6))]
    batches = lay_out_prompts(prompts, {"a": (4,), "b": (9,)}, 2, 2, 1, PAD)
    assert [(batch.domain, batch.members, batch.tokens.shape) for batch in batches] == [
        ("b", (0, 1), (1, 2, 24)),
        ("b", (2,), (1, 2, 8)),
        ("a", (3,), (1, 2, 8)),
    ]
    assert [batch.lengths.tolist() for batch in batches] == [[[20, 5]], [[3, 1]], [[2, 1]]]
    assert batches[2].tokens[0].tolist() == [[5, 6, *[PAD] * 6], [PAD] * 8]
