"""Prompts in a few lengths."""

from itertools import combinations

import numpy as np
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


def prompts_of(domain: str, first: int, lengths) -> list[Example]:
    """Prompts with so many tokens of their own behind a common first one; the own tokens name the prompt."""
    return [Example(domain, "", "", (first, *[10 + i] * n)) for i, n in enumerate(lengths)]


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=30),
    st.integers(1, 3),
    st.integers(1, 8),
    st.integers(1, 3),
    st.booleans(),
)
def test_every_prompt_is_laid_out_once(lengths, buckets, slots, devices, one_row):
    prompts = prompts_of("b", 9, lengths) + prompts_of("a", 4, lengths[:3])
    laid = lay_out_prompts(prompts, {"a": (4,), "b": (9,)}, buckets, slots, devices, PAD, one_row=one_row)
    seen = []
    for bucket in laid:
        assert bucket.slots <= slots
        assert len({batch.tokens.shape for batch in bucket.batches}) == 1, "one program per bucket"
        for batch in bucket.batches:
            length = batch.tokens.shape[2]
            for device, members in enumerate(batch.members):
                assert len(members) <= bucket.slots and (batch.lengths[device] > 0).sum() == len(members)
                tokens, starts = batch.tokens[device].reshape(-1), batch.starts[device].reshape(-1)
                real = np.zeros(tokens.size, bool)
                for at, size, member in zip(batch.first[device], batch.lengths[device], members, strict=False):
                    here = slice(at, at + size)
                    assert tokens[here].tolist() == list(prompts[member].prompt_ids[1:])
                    assert prompts[member].domain == bucket.domain and size <= bucket.length
                    assert (starts[here] == at % length).all() and not real[here].any()
                    real[here] = True
                assert (tokens[~real] == PAD).all() and (starts[~real] == length).all()
                seen += members
    assert sorted(seen) == list(range(len(prompts)))
    assert len({bucket.length for bucket in laid if bucket.domain == "b"}) <= buckets


def test_one_long_row_leaves_little_empty():
    lengths = np.random.default_rng(0).integers(30, 400, 180).tolist()
    prompts = prompts_of("a", 4, lengths)
    laid = lay_out_prompts(prompts, {"a": (4,)}, 3, 32, 1, PAD, one_row=True)
    computed = sum(batch.tokens.size for bucket in laid for batch in bucket.batches)
    assert sum(lengths) <= computed < 1.1 * sum(lengths)
