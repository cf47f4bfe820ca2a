"""Tensors come from safetensors by name, sharded or not, and what is broken is named."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kdjax.errors import InputError
from kdjax.sources import open_weights, read_config, resolve


@pytest.fixture
def sharded(tiny):
    """The tiny model in two shards with an index."""
    tensors = load_file(tiny.folder / "model.safetensors")
    (tiny.folder / "model.safetensors").unlink()
    weight_map = {}
    for number, names in enumerate((sorted(tensors)[:7], sorted(tensors)[7:]), start=1):
        shard = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, tiny.folder / shard)
        weight_map |= dict.fromkeys(names, shard)
    write_index(tiny, {"metadata": {}, "weight_map": weight_map})
    return tiny, tensors


def write_index(files, content) -> None:
    (files.folder / "model.safetensors.index.json").write_text(json.dumps(content))


def test_shards_hold_what_one_file_holds(sharded):
    files, tensors = sharded
    weights = open_weights(files)
    assert len(weights) == len(tensors)
    for name in tensors:
        np.testing.assert_array_equal(weights[name], tensors[name])


def test_a_file_that_the_index_does_not_name_is_left_alone(sharded):
    files, tensors = sharded
    save_file({"stranger": np.zeros(2, np.float32)}, files.folder / "adapter_model.safetensors")
    assert set(open_weights(files)) == set(tensors)


def test_the_single_file_counts_before_an_index_and_its_shards(sharded):
    files, tensors = sharded
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, files.folder / "model.safetensors")
    weights = open_weights(files)
    for name in tensors:
        np.testing.assert_array_equal(weights[name], tensors[name] + 1)


@pytest.mark.parametrize("name", ["model_ema", "pytorch_model", "zzz", "consolidated"])
def test_no_file_beside_the_single_one_counts(tiny, name):
    tensors = load_file(tiny.folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, tiny.folder / f"{name}.safetensors")
    weights = open_weights(tiny)
    for key in tensors:
        np.testing.assert_array_equal(weights[key], tensors[key])


def test_a_tensor_counts_in_whichever_shard_it_is(sharded):
    """As in transformers: the index says which files to read, not what is in them."""
    files, tensors = sharded
    names = sorted(tensors)
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    write_index(files, {"weight_map": {names[0]: shards[1], names[-1]: shards[0]}})
    assert set(open_weights(files)) == set(tensors)


def test_bfloat16_stays_bfloat16(tiny):
    save_file({"x": np.array([1.5, -2.0], ml_dtypes.bfloat16)}, tiny.folder / "model.safetensors")
    weight = open_weights(tiny)["x"]
    assert weight.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(weight.astype(np.float32), [1.5, -2.0])


def test_a_missing_shard_is_named(sharded):
    files, _ = sharded
    (files.folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="model-00002-of-00002"):
        open_weights(files)


@pytest.mark.parametrize("shard", ["../outside.safetensors", "sub/inside.safetensors", "{absolute}"])
def test_a_shard_outside_the_folder_is_refused(sharded, tmp_path, shard):
    files, _ = sharded
    (files.folder / "sub").mkdir()
    outside = files.folder.parent / "outside.safetensors"
    for path in (outside, files.folder / "sub" / "inside.safetensors"):
        save_file({"x": np.zeros(2, np.float32)}, path)
    write_index(files, {"weight_map": {"x": shard.format(absolute=outside)}})
    with pytest.raises(InputError, match="is not in the folder"):
        open_weights(files)


@pytest.mark.parametrize("content", [{}, {"weight_map": None}, {"weight_map": {"x": 3}}, [1]])
def test_an_index_of_another_form_is_refused(sharded, content):
    files, _ = sharded
    write_index(files, content)
    with pytest.raises(InputError, match=r"model\.safetensors\.index\.json"):
        open_weights(files)


@pytest.mark.parametrize("keep", [0, 4, 200, -1])
def test_a_truncated_file_is_named(tiny, keep):
    path = tiny.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"model\.safetensors: not a readable safetensors file"):
        open_weights(tiny)


@pytest.mark.parametrize(("content", "message"), [("{", "not readable as JSON"), ("[]", "expected a JSON object")])
def test_a_broken_config_is_named(tiny, content, message):
    (tiny.folder / "config.json").write_text(content)
    with pytest.raises(InputError, match=rf"config\.json: {message}"):
        read_config(resolve(str(tiny.folder)))
