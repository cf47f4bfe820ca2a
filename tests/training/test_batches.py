"""Planning and laying out: numpy alone, no model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import PAD, fixed_group, random_examples

from kdjax.prompting import Example
from kdjax.training import batch_members, lay_out, plan_groups
from kdjax.training.batches import steps_per_epoch

tokens = st.lists(st.integers(3, 5), min_size=1, max_size=20).map(tuple)
any_examples = st.lists(
    st.builds(Example, st.sampled_from("ab"), st.just(""), st.just(""), tokens, st.just(""), tokens),
    min_size=1,
    max_size=12,
)


@given(any_examples, st.integers(1, 300), st.integers(1, 3), st.booleans())
@settings(deadline=None)
def test_every_example_is_laid_out_once_and_whole(examples, micro_batch_tokens, devices, one_row):
    groups = plan_groups(examples, micro_batch_tokens, one_row)
    batches = lay_out(examples, groups, devices, PAD)
    assert sorted(member for batch in batches for member in batch.members) == list(range(len(examples)))
    for batch in batches:
        group = groups[examples[batch.members[0]].domain]
        most = 1 if one_row else max(1, micro_batch_tokens // group.length)
        assert batch.rows.tokens.shape[0] == devices and batch.rows.tokens.shape[1] <= most
        assert np.bincount(batch.rows.ids[batch.rows.ids >= 0]).max() <= batch.rows.longest
        rows = {name: getattr(batch.rows, name) for name in batch.rows.__dataclass_fields__ if name != "longest"}
        rows = {name: array.reshape(-1, array.shape[-1]) for name, array in rows.items()}
        assert rows["tokens"].shape[1] % 8 == 0 and rows["labels"].shape[1] % 8 == 0
        of_target = np.take_along_axis(rows["ids"], rows["positions"], axis=1)
        for member in batch.members:
            example = examples[member]
            joint = example.prompt_ids + example.completion_ids
            row, start = (int(places[0]) for places in np.nonzero(rows["ids"] == member))
            here = rows["ids"][row] == member
            assert (np.nonzero(here)[0] == start + np.arange(here.sum())).all()  # in one piece
            assert (rows["starts"][row][here] == start).all()
            targets = (rows["weights"][row] > 0) & (of_target[row] == member)
            labels = tuple(rows["labels"][row][targets])
            assert labels == example.completion_ids
            assert (*batch.prefix, *rows["tokens"][row][here], labels[-1]) == joint
            for position, label in zip(rows["positions"][row][targets], labels, strict=True):
                assert (
                    joint[len(batch.prefix) + position - start + 1] == label
                )  # the token behind the one it is predicted from
        empty = rows["ids"] < 0
        assert (rows["tokens"][empty] == PAD).all()
        assert (rows["starts"][empty] == rows["tokens"].shape[1]).all()
        assert rows["weights"].sum() == sum(len(examples[member].completion_ids) for member in batch.members)


@given(any_examples)
def test_the_prefix_is_the_longest_that_leaves_each_prompt_a_token(examples):
    for domain, group in plan_groups(examples, 100, one_row=True).items():
        prompts = [example.prompt_ids for example in examples if example.domain == domain]
        size = len(group.prefix)
        assert all(prompt[:size] == group.prefix and len(prompt) > size for prompt in prompts)
        assert any(len(prompt) == size + 1 for prompt in prompts) or len({prompt[size] for prompt in prompts}) > 1


def test_rows_are_packed_longest_first():
    """Own lengths 24, 17, 9, 9 and 6 into rows of 32, each into the emptiest: 24, 17 + 6, 9 + 9."""
    sizes = (9, 17, 6, 24, 9)
    examples = [Example("a", "", "", (3, 4 + i, *range(50, 50 + n - 2)), "", (5, 6)) for i, n in enumerate(sizes)]
    batches = lay_out(examples, {"a": fixed_group((3,), 32, 8, 2)}, 1, PAD)
    assert [batch.members for batch in batches] == [(3, 1, 2), (0, 4)]
    assert [batch.rows.tokens.shape for batch in batches] == [(1, 2, 32), (1, 2, 32)]
    assert [np.unique(row).tolist() for batch in batches for row in batch.rows.ids[0]] == [
        [-1, 3],
        [-1, 1, 2],
        [-1, 0, 4],
        [-1],
    ]


def test_a_row_takes_no_more_targets_than_it_has_room_for():
    examples = [Example("a", "", "", (3, 4 + i), "", (5,) * 6) for i in range(4)]
    (batch,) = lay_out(examples, {"a": fixed_group((3,), 64, 16, 4)}, 1, PAD)
    assert [len(np.unique(row[row >= 0])) for row in batch.rows.ids[0]] == [2, 2]


@pytest.mark.parametrize(("one_row", "share"), [(False, 0.85), (True, 0.9)])
def test_little_is_padding(one_row, share):
    examples = random_examples("a", 160, prefix=4)
    batches = lay_out(examples, plan_groups(examples, 2048, one_row), 1, PAD)
    real = sum(len(example) - 4 - 1 for example in examples)
    assert real > share * sum(batch.rows.tokens.size for batch in batches)


def test_one_long_row_needs_few_programs():
    """Steps of other examples have rows of few lengths: each is a program to compile."""
    examples = random_examples("a", 640, prefix=4)
    groups = plan_groups(examples, 4096, one_row=True)
    steps = [batch_members(len(examples), 64, 0, step) for step in range(10)]
    batches = [batch for step in steps for batch in lay_out([examples[i] for i in step], groups, 1, PAD)]
    shapes = {batch.rows.tokens.shape + batch.rows.labels.shape for batch in batches}
    assert len(batches) == 10 and len(shapes) <= 8


def test_lay_out_follows_the_examples_alone():
    examples = random_examples("b", 5, prefix=4) + random_examples("a", 4, prefix=3)
    groups = plan_groups(examples, 40, one_row=True)
    first, second = (lay_out(examples, groups, 2, PAD, ids=range(100, 109)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.members == other.members
        assert set(one.rows.ids.ravel()) - {-1} == {100 + member for member in one.members}
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
