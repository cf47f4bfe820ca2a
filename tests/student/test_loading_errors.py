"""What cannot be used exactly as it is given is refused, and the message names it."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kdjax.errors import InputError
from kdjax.student import LoraConfig, load_student
from kdjax.student.families import decoder_config

HEAD = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of the tiny model to break."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


@pytest.fixture
def config(tiny_folder) -> dict:
    return json.loads((tiny_folder / "config.json").read_text())


def change_tensors(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def refused(folder, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_student(str(folder))


# Tensors


def test_a_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, r"no \*\.safetensors")


def test_a_missing_tensor(folder):
    change_tensors(folder, lambda tensors: tensors.pop(HEAD))
    refused(folder, rf"tensors missing: {HEAD}; unexpected: none")


def test_an_unexpected_tensor(folder):
    change_tensors(folder, lambda tensors: tensors.update({"model.layers.1.self_attn.q_norm.weight": np.ones(12)}))
    refused(folder, r"missing: none; unexpected: model\.layers\.1\.self_attn\.q_norm\.weight")


def test_more_layers_than_the_config_says(folder, config):
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    refused(folder, r"unexpected: model\.layers\.1\..* and 5 more")


def test_a_tensor_of_another_shape(folder):
    change_tensors(folder, lambda tensors: tensors.update({HEAD: tensors[HEAD][:, :-1].copy()}))
    refused(folder, rf"tensor {HEAD} has shape \(96, 47\), config\.json asks for \(96, 48\)")


def test_an_untied_head_that_is_not_there(folder, config):
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    refused(folder, r"missing: lm_head\.weight")


def test_a_tied_head_may_be_stored_twice_and_old_buffers_are_left(folder, tiny):
    def add(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(6, np.float32)

    change_tensors(folder, add)
    base = load_student(str(folder)).base
    assert set(base) == set(tiny.base)


def test_a_head_that_the_config_calls_tied_and_that_is_another(folder):
    """transformers would use it, against the config, with a warning."""
    change_tensors(folder, lambda tensors: tensors.update({"lm_head.weight": 2 * tensors["model.embed_tokens.weight"]}))
    refused(folder, r"lm_head\.weight is not the embedding; set tie_word_embeddings to false")


def test_a_truncated_weights_file(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, "not a readable safetensors file")


# Config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "architecture 'MambaForCausalLM' is not supported; supported: Llama"),
        ({"architectures": []}, "architecture None is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not supported, only 'silu'"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4}}, "rope type 'dynamic' is not supported"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "does not say 'low_freq_factor'"),
    ],
)
def test_a_config_that_is_not_computed_here(config, changes, message):
    with pytest.raises(InputError, match=f"my model: .*{message}"):
        decoder_config(config | changes, "my model")


@pytest.mark.parametrize(
    "name", ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "rms_norm_eps", "architectures"]
)
def test_a_missing_field_is_named(config, name):
    del config[name]
    with pytest.raises(InputError, match=name.removesuffix("s")):
        decoder_config(config, "my model")


def test_fields_with_a_default(config):
    for name in ("num_key_value_heads", "head_dim", "rope_theta", "tie_word_embeddings"):
        del config[name]
    read = decoder_config(config, "my model")
    assert (read.num_key_value_heads, read.head_dim, read.rope.theta) == (4, 12, 10000.0)
    assert read.tie_word_embeddings is False


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float16"}, r"student\.dtype='float16' is not supported; choose from float32, bfloat16"),
        ({"quantization": "int3"}, r"student\.quantization='int3' is not supported; choose from None, int8, nf4"),
        ({"lora": LoraConfig(), "adapter": "somewhere"}, "not both"),
    ],
)
def test_arguments_that_are_not_supported(tiny_folder, arguments, message):
    with pytest.raises(InputError, match=message):
        load_student(str(tiny_folder), **arguments)


def test_tokens_must_be_rows(tiny):
    for tokens in ([1, 2, 3], [[]], [[[1]]]):
        with pytest.raises(InputError, match=r"non-empty \[batch, seq\]"):
            tiny.logits(np.array(tokens, np.int32))


def test_a_plain_student_has_no_adapter_to_save(tiny, tmp_path):
    with pytest.raises(InputError, match="no adapter to save"):
        tiny.save_adapter(tmp_path)
