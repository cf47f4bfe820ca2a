"""Planning and laying out: numpy alone, no model."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import PAD, random_examples

from kdjax.prompting import Example
from kdjax.training import bucket_edges, lay_out, plan_groups
from kdjax.training.batches import batch_members, steps_per_epoch


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


tokens = st.lists(st.integers(3, 5), min_size=1, max_size=20).map(tuple)
any_examples = st.lists(
    st.builds(Example, st.sampled_from("ab"), st.just(""), st.just(""), tokens, st.just(""), tokens),
    min_size=1,
    max_size=12,
)


@given(any_examples, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
@settings(deadline=None)
def test_every_example_is_laid_out_once_and_whole(examples, buckets, rows, devices):
    groups = plan_groups(examples, buckets)
    batches = lay_out(examples, groups, rows, devices, PAD)
    assert sorted(member for batch in batches for member in batch.members) == list(range(len(examples)))
    for batch in batches:
        flat = {name: getattr(batch.rows, name).reshape(rows * devices, -1) for name in batch.rows.__dataclass_fields__}
        assert batch.rows.tokens.shape[:2] == (devices, rows)
        assert flat["tokens"].shape[1] % 8 == 0 and flat["labels"].shape[1] % 8 == 0
        real = len(batch.members)
        for row, member in enumerate(batch.members):
            example = examples[member]
            assert flat["ids"][row] == member
            fed = (*batch.prefix, *flat["tokens"][row, : flat["lengths"][row, 0]])
            weights, labels = flat["weights"][row] > 0, flat["labels"][row]
            assert fed + (labels[weights][-1],) == example.prompt_ids + example.completion_ids
            assert tuple(labels[weights]) == example.completion_ids
            for position, label in zip(flat["positions"][row][weights], labels[weights], strict=True):
                joint = example.prompt_ids + example.completion_ids
                assert joint[len(batch.prefix) + position + 1] == label  # the token behind the one it is predicted from
        assert not flat["weights"][real:].any() and (flat["ids"][real:] == -1).all()
        assert (flat["tokens"][real:] == PAD).all() and (flat["lengths"] >= 1).all()


@given(any_examples)
def test_the_prefix_is_the_longest_that_leaves_each_prompt_a_token(examples):
    for domain, group in plan_groups(examples, 1).items():
        prompts = [example.prompt_ids for example in examples if example.domain == domain]
        size = len(group.prefix)
        assert all(prompt[:size] == group.prefix and len(prompt) > size for prompt in prompts)
        assert any(len(prompt) == size + 1 for prompt in prompts) or len({prompt[size] for prompt in prompts}) > 1


def test_a_micro_batch_takes_the_smallest_bucket_that_fits():
    short = [Example("a", "", "", (3, i), "", (5,)) for i in range(4, 8)]
    long = [Example("a", "", "", (3, *range(4, 24)), "", (5,) * 10)]
    groups = plan_groups(short + long, 2)
    assert [(b.length, b.targets) for b in groups["a"].buckets] == [(8, 8), (32, 16)]
    batches = lay_out(short + long, groups, 2, 1, PAD)
    assert [batch.members for batch in batches] == [(4, 0), (1, 2), (3,)]  # longest first, then in their order
    assert [batch.rows.tokens.shape for batch in batches] == [(1, 2, 32), (1, 2, 8), (1, 2, 8)]


def test_prompts_without_a_target_are_fed_whole():
    prompts = [Example("a", "", "", (3, 4, 5, 6)), Example("a", "", "", (3, 4, 7))]
    (batch,) = lay_out(prompts, plan_groups(prompts, 1), 2, 1, PAD)
    assert batch.prefix.tolist() == [3, 4]
    assert [row[:n].tolist() for row, n in zip(batch.rows.tokens[0], batch.rows.lengths[0], strict=True)] == [
        [5, 6],
        [7],
    ]
    assert batch.rows.labels.shape[-1] == 0


def test_lay_out_follows_the_examples_alone():
    examples = random_examples("b", 5, prefix=4) + random_examples("a", 4, prefix=3)
    groups = plan_groups(examples, 2)
    first, second = (lay_out(examples, groups, 2, 2, PAD, ids=range(100, 109)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.members == other.members
        assert one.rows.ids.ravel()[: len(one.members)].tolist() == [100 + member for member in one.members]
        np.testing.assert_array_equal(one.rows.tokens, other.rows.tokens)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_takes_each_example_once(count, size, seed, epoch):
    steps = range(epoch * steps_per_epoch(count, size), (epoch + 1) * steps_per_epoch(count, size))
    batches = [batch_members(count, size, seed, step) for step in steps]
    assert sorted(member for batch in batches for member in batch) == list(range(count))
    assert all(len(batch) == size for batch in batches[:-1])
    assert batches == [batch_members(count, size, seed, step) for step in steps]  # of nothing but its arguments


@pytest.mark.parametrize("other", [{"seed": 1, "step": 0}, {"seed": 0, "step": 1}])
def test_epochs_and_seeds_differ(other):
    assert batch_members(20, 20, **other) != batch_members(20, 20, seed=0, step=0)
