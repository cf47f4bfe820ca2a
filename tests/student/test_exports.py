"""Exported adapters, read back and applied as llama.cpp and mlx-lm apply them, give the logits of the student they come from."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors.numpy import load_file, save_file
from students import trained_student

from kdjax.errors import InputError
from kdjax.sources.tiny import write_tiny_model
from kdjax.student import EXPORTS, PAIR_HEAD, LoraConfig, convert_adapter, load_student
from kdjax.student.exports.adapter import open_adapter
from kdjax.student.exports.gguf_file import write_gguf_adapter
from tests.sources.gguf_helpers import byte_level_tokenizer, hf_weights, write_gguf

LORA = LoraConfig(r=4, lora_alpha=6)
UNIFORM = {
    "all": LORA,
    "rslora": replace(LORA, use_rslora=True),
    "first-layer": replace(LORA, target_modules=["k_proj", "down_proj"], layers_to_transform=[0]),
    "scattered": replace(LORA, target_modules=["model.layers.0.mlp.up_proj", "model.layers.1.self_attn.q_proj"]),
}
RANKS = {"ranks": replace(LORA, rank_pattern={"q_proj": 2, "1.mlp.up_proj": 7})}
DORA = {"dora": replace(LORA, use_dora=True), "dora-first-layer": replace(UNIFORM["first-layer"], use_dora=True)}
TOKENS = np.random.default_rng(0).integers(3, 259, (2, 70)).astype(np.int32)


def by_name(table):
    return pytest.mark.parametrize("lora", table.values(), ids=table.keys())


def exported(form, base, lora, folder):
    """A trained student of `base`, and its adapter in another program's format."""
    student = trained_student(base, lora)
    student.save_adapter(folder / "adapter")
    convert_adapter(folder / "adapter", form, folder / "out")
    return student, folder / "out"


def assert_same(merged, student):
    """The merged model says what the student says, and the adapter makes a difference."""
    expected = np.asarray(student.logits(TOKENS))
    assert np.abs(np.asarray(load_student(str(merged)).logits(TOKENS)) - expected).max() < 1e-4
    assert np.abs(np.asarray(load_student(student.files.source).logits(TOKENS)) - expected).max() > 0.01


def read_gguf(path):
    """Architecture, alpha and {name: array} of an adapter file, by the package gguf."""
    reader = GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.type"] == "adapter" and fields["adapter.type"] == "lora"
    tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    return fields["general.architecture"], fields["adapter.lora.alpha"], tensors


def gguf_updates(path):
    """{name of a weight: what llama.cpp adds to it}, alpha / rank · B·A with each pair's own rank."""
    _, alpha, tensors = read_gguf(path)
    names = [name.removesuffix(".lora_a") for name in tensors if name.endswith(".lora_a")]
    assert len(tensors) == 2 * len(names)
    pairs = {name: (tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]) for name in names}
    return {name: np.float32(alpha / len(a)) * (b @ a) for name, (a, b) in pairs.items()}


@by_name(UNIFORM | RANKS)
def test_llama_cpp_adds_what_the_student_adds(tmp_path, lora):
    """On a base that is a GGUF file, to whose tensors the updates are added as they are stored there."""
    tokenizer = byte_level_tokenizer()
    base = write_gguf(tmp_path / "base.gguf", hf_weights(tokenizer.get_vocab_size()), tokenizer)
    student, path = exported("gguf", base, lora, tmp_path)
    updates = gguf_updates(path)
    merged = shutil.copyfile(base, tmp_path / "merged.gguf")
    reader = GGUFReader(merged, "r+")
    for tensor in reader.tensors:
        if tensor.name in updates:
            tensor.data[...] += updates.pop(tensor.name)
    reader.data.flush()
    assert not updates
    assert_same(merged, student)


def merge(folder, base, change):
    """A copy of the model folder `base` with each weight changed."""
    shutil.copytree(base, folder)
    weights = load_file(base / "model.safetensors")
    save_file({name: change(name, weight) for name, weight in weights.items()}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("model_type, architecture", [("qwen2", "qwen2"), ("qwen3", "qwen3"), ("mistral", "llama")])
def test_rows_are_reordered_for_the_llama_architecture_alone(tmp_path, model_type, architecture):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from torch_models import save_model

    base = save_model(tmp_path / "base", model_type=model_type)
    student, path = exported("gguf", base, LORA, tmp_path)
    found, _, tensors = read_gguf(path)
    assert found == architecture
    q, k = (student.adapter["layers"]["self_attn"][name]["lora_B"][1] for name in ("q_proj", "k_proj"))
    same = {name: np.array_equal(tensors[f"blk.1.attn_{name}.weight.lora_b"], b) for name, b in (("q", q), ("k", k))}
    assert same == dict.fromkeys("qk", architecture != "llama")


@by_name(UNIFORM | DORA)
def test_mlx_lm_computes_what_the_student_computes(tiny_folder, tmp_path, lora):
    """Maps that `keys` names in the last `num_layers` layers have an adapter; its B is 0 where the file has none."""
    student, folder = exported("mlx", tiny_folder, lora, tmp_path)
    config, tensors = (
        json.loads((folder / "adapter_config.json").read_text()),
        load_file(folder / "adapters.safetensors"),
    )
    settings, used = config["lora_parameters"], set()

    def change(name, weight):
        path = name.removesuffix(".weight")
        place = path.split(".", 3)
        if len(place) < 4 or place[3] not in settings["keys"] or int(place[2]) < 2 - config["num_layers"]:
            return weight
        used.update(f"{path}.{part}" for part in ("lora_a", "lora_b", "m"))
        if f"{path}.lora_a" not in tensors:
            return weight
        a, b = tensors[f"{path}.lora_a"], tensors[f"{path}.lora_b"]
        assert a.shape == (weight.shape[1], settings["rank"]) and b.shape == (settings["rank"], len(weight))
        weight = weight + np.float32(settings["scale"]) * (b.T @ a.T)
        if config["fine_tune_type"] == "dora":
            weight *= (tensors[f"{path}.m"] / np.linalg.norm(weight, axis=1))[:, None]
        return weight

    assert_same(merge(tmp_path / "merged", tiny_folder, change), student)
    assert tensors.keys() <= used  # mlx-lm refuses tensors without a place
    assert settings["dropout"] == lora.lora_dropout


@pytest.mark.parametrize(
    "form, changes, message",
    [
        ("gguf", {"use_dora": True}, "use_dora=True cannot be exported: llama.cpp has no DoRA"),
        ("gguf", {"alpha_pattern": {"q_proj": 9}}, "alpha_pattern=.*one alpha"),
        ("gguf", {"rank_pattern": {"q_proj": 2}, "use_rslora": True}, "rank_pattern=.*with use_rslora"),
        ("mlx", {"rank_pattern": {"q_proj": 2}}, "rank_pattern=.*one rank"),
        ("mlx", {"alpha_pattern": {"q_proj": 9}}, "alpha_pattern=.*one scale"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_by_name(tiny_folder, tmp_path, form, changes, message):
    with pytest.raises(InputError, match=message):
        exported(form, tiny_folder, replace(LORA, **changes), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter"}  # nothing is left of it


@pytest.fixture
def adapter(tiny_folder, tmp_path):
    """The folder of a trained adapter, and of its base."""
    base = tmp_path / "base"
    write_tiny_model(base)
    trained_student(base, LORA).save_adapter(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize("form", EXPORTS)
def test_a_student_that_judges_pairs_is_refused(adapter, tmp_path, form):
    (adapter / PAIR_HEAD).touch()
    with pytest.raises(InputError, match="student.answer='text'"):
        convert_adapter(adapter, form, tmp_path / "out")


@pytest.mark.parametrize("form", EXPORTS)
def test_what_is_there_is_not_overwritten(adapter, tmp_path, form):
    """An MLX folder has a file of the same name as PEFT's."""
    before = (adapter / "adapter_config.json").read_bytes()
    with pytest.raises(InputError, match="something already"):
        convert_adapter(adapter, form, adapter)
    assert (adapter / "adapter_config.json").read_bytes() == before


@pytest.mark.parametrize("form", EXPORTS)
def test_the_same_adapter_gives_the_same_bytes(adapter, tmp_path, form):
    outs = []
    for name in ("one", "two"):
        convert_adapter(adapter, form, tmp_path / name / "out")
        written = tmp_path / name / "out"
        files = sorted(written.iterdir()) if written.is_dir() else [written]
        outs.append([(path.name, path.read_bytes()) for path in files])
    assert outs[0] == outs[1]


def test_an_unknown_format_is_named(adapter, tmp_path):
    with pytest.raises(InputError, match="'onnx' is not supported; choose from gguf, mlx"):
        convert_adapter(adapter, "onnx", tmp_path / "out")


def test_an_adapter_that_names_no_base_needs_one(adapter, tmp_path):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": None}))
    with pytest.raises(InputError, match="names no base model; name it in config.student.source"):
        convert_adapter(adapter, "gguf", tmp_path / "out")
    convert_adapter(adapter, "gguf", tmp_path / "out", str(tmp_path / "base"))
    assert read_gguf(tmp_path / "out")[0] == "llama"


def test_a_family_that_llama_cpp_has_no_name_for_is_refused(adapter, tmp_path):
    opened = open_adapter(adapter)
    with pytest.raises(InputError, match="architecture is not known"):
        write_gguf_adapter(replace(opened, family=replace(opened.family, gguf="")), tmp_path / "out")
