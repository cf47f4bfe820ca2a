"""A merged folder is an ordinary Hugging Face model that says what base + adapter say."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from students import trained_student

from kdjax.errors import InputError
from kdjax.student import LoraConfig, adapters, load_student

LORA = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "o_proj", "down_proj"])
TOKENS = np.random.default_rng(0).integers(3, 259, (2, 70)).astype(np.int32)


def test_the_update_is_added_to_the_adapted_maps_alone(tiny_folder, tmp_path):
    student = trained_student(tiny_folder, LORA)
    student.save_merged(tmp_path)
    before, after = load_file(tiny_folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert set(before) == set(after)
    for name in before:
        if not any(module in name for module in LORA.target_modules):
            np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    q = student.adapter["layers"]["self_attn"]["q_proj"]
    name = "model.layers.1.self_attn.q_proj.weight"
    expected = before[name] + 4.0 * np.asarray(q["lora_B"][1]) @ np.asarray(q["lora_A"][1])
    np.testing.assert_allclose(after[name], expected, atol=1e-6)


def test_a_merged_student_reads_back(tiny_folder, tmp_path):
    student = trained_student(tiny_folder, LORA)
    student.save_merged(tmp_path)
    merged = load_student(str(tmp_path))
    np.testing.assert_allclose(merged.logits(TOKENS), student.logits(TOKENS), atol=1e-4)
    text = "<|im_start|>user\n1. Café mug<|im_end|>"
    assert merged.tokenizer.encode(text) == student.tokenizer.encode(text)


def test_without_an_adapter_the_base_is_written(tiny, tiny_folder, tmp_path):
    tiny.save_merged(tmp_path)
    before, after = load_file(tiny_folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert set(before) == set(after)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)


@pytest.mark.parametrize("shard_bytes", [1, 20_000, 100_000])
def test_shards_hold_the_same_tensors(tiny_folder, tmp_path, monkeypatch, shard_bytes):
    student = trained_student(tiny_folder, LORA)
    student.save_merged(tmp_path / "whole")
    monkeypatch.setattr(adapters, "SHARD_BYTES", shard_bytes)
    student.save_merged(tmp_path / "sharded")
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    index = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())
    shards = {path.name: load_file(path) for path in (tmp_path / "sharded").glob("*.safetensors")}
    assert set(index["weight_map"].values()) == set(shards)
    assert len(shards) > 1
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    assert sorted(name for shard in shards.values() for name in shard) == sorted(whole)
    for name, tensor in whole.items():
        np.testing.assert_array_equal(shards[index["weight_map"][name]][name], tensor)
    for shard in shards.values():  # a shard is larger only where one tensor alone is
        assert len(shard) == 1 or sum(tensor.nbytes for tensor in shard.values()) <= shard_bytes


DORA = LoraConfig(r=4, lora_alpha=16, use_dora=True, rank_pattern={"q_proj": 2}, exclude_modules=["0.mlp.up_proj"])


@pytest.mark.parametrize(
    ("changes", "lora", "shard_bytes"),
    [
        ({}, LORA, None),
        ({"tie_word_embeddings": False}, LORA, None),
        ({}, LORA, 50_000),
        ({"model_type": "qwen2"}, DORA, None),
        ({"model_type": "qwen3", "head_dim": 16}, LORA, 50_000),
        ({"model_type": "mistral", "sliding_window": 24}, DORA, None),
    ],
    ids=["tied", "untied", "sharded", "qwen2-dora", "qwen3", "mistral-dora"],
)
def test_transformers_loads_the_merged_folder(tmp_path, monkeypatch, changes, lora, shard_bytes):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from torch_models import reference, reference_logits, save_model
    from transformers import AutoTokenizer

    student = trained_student(save_model(tmp_path / "base", **changes), lora)
    if shard_bytes:
        monkeypatch.setattr(adapters, "SHARD_BYTES", shard_bytes)
    student.save_merged(tmp_path / "merged")
    expected = np.asarray(student.logits(TOKENS))
    assert np.abs(reference_logits(reference(tmp_path / "merged"), TOKENS) - expected).max() < 1e-4
    assert np.abs(reference_logits(reference(tmp_path / "base"), TOKENS) - expected).max() > 0.1
    theirs = AutoTokenizer.from_pretrained(tmp_path / "merged")
    messages = [{"role": "user", "content": "1. Café mug"}]
    assert theirs.apply_chat_template(messages, tokenize=False) == student.tokenizer.render(messages, False)


def test_a_bfloat16_base_is_merged_in_float32_and_written_as_bfloat16(tiny_folder, tmp_path):
    student = load_student(str(tiny_folder), lora=LORA, dtype="bfloat16")
    student.adapter = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.03, jnp.float32), student.adapter)
    student.save_merged(tmp_path)
    name = "model.layers.0.mlp.down_proj.weight"
    written = load_file(tmp_path / "model.safetensors")[name]
    assert written.dtype == jnp.bfloat16
    base = np.asarray(student.base["layers"]["mlp"]["down_proj"]["weight"][0]).astype(np.float32)
    expected = (base + np.float32(4.0 * 4 * 0.03 * 0.03)).astype(jnp.bfloat16)
    assert (written == expected).mean() > 0.999  # but for a tie in rounding
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"  # the newer and the older name


@pytest.mark.real
def test_the_real_model_is_merged_into_an_ordinary_folder(tmp_path):
    """From GGUF to a folder: weights, config, tokenizer and chat template."""
    from torch_models import reference, reference_logits
    from transformers import AutoTokenizer

    from kdjax.sources import DEFAULT_MODEL

    student = trained_student(DEFAULT_MODEL, LORA)
    student.save_merged(tmp_path)
    tokens = np.random.default_rng(0).integers(20, 49_000, (1, 128))
    assert np.abs(reference_logits(reference(tmp_path), tokens) - np.asarray(student.logits(tokens))).max() < 1e-3
    messages = [{"role": "system", "content": "Group."}, {"role": "user", "content": "1. Café mug 300 ml"}]
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = student.tokenizer.render(messages)
    assert theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == text
    assert theirs(text, add_special_tokens=False)["input_ids"] == student.tokenizer.encode(text)


def test_a_folder_with_weights_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"of another model")
    student = load_student("tiny-random")
    with pytest.raises(InputError, match="holds weights already"):
        student.save_merged(tmp_path)


LEFTOVERS = ["adapter_config.json", "adapter_model.safetensors", "model.safetensors.index.json", "chat_template.jinja"]


@pytest.mark.parametrize("name", [*LEFTOVERS, "generation_config.json", "other.gguf"])
def test_a_folder_with_a_file_that_a_loader_would_mix_in_is_refused(name, tiny, tmp_path):
    """transformers adds an adapter that lies beside a model, which here is in the weights already."""
    (tmp_path / name).write_bytes(b"of another model")
    with pytest.raises(InputError, match=rf"other files of a model \({name}\)"):
        tiny.save_merged(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


GENERATION = "generation_config.json"


@pytest.mark.parametrize(
    ("config", "generation"),
    [(0, {"eos_token_id": [0, 2], "temperature": 0.6}), (0, {"eos_token_id": 0}), (0, {}), (2, None), ([2, 0], None)],
)
def test_a_merged_model_ends_its_turns_where_the_base_did(config, generation, tiny_folder, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers import AutoModelForCausalLM

    base = shutil.copytree(tiny_folder, tmp_path / "base")
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(settings | {"eos_token_id": config}))
    if generation is not None:
        (base / GENERATION).write_text(json.dumps(generation))
    student = load_student(str(base))
    student.save_merged(tmp_path / "merged")
    before, after = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("base", "merged"))
    assert after.generation_config.eos_token_id == before.generation_config.eos_token_id
    assert load_student(str(tmp_path / "merged")).tokenizer.eos_ids == student.tokenizer.eos_ids
    assert (tmp_path / "merged" / GENERATION).is_file() is (generation is not None)
    if generation is not None:
        assert (tmp_path / "merged" / GENERATION).read_bytes() == (base / GENERATION).read_bytes()


def test_token_ids_outside_the_vocabulary_are_refused():
    with pytest.raises(InputError, match="259"):
        load_student("tiny-random").logits(np.array([[1, 259]]))
