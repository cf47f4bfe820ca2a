"""Adapters on disk: what was saved comes back, and what does not fit is refused before it does harm."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from students import trained_student

from kdjax.errors import InputError
from kdjax.student import LoraConfig, adapters, load_student

LORA = LoraConfig(r=4, lora_alpha=16, lora_dropout=0.1, target_modules=("v_proj", "q_proj", "down_proj"))
Q = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
TOKENS = np.random.default_rng(0).integers(3, 259, (2, 24)).astype(np.int32)


@pytest.fixture(scope="module")
def student(tiny_folder):
    return trained_student(tiny_folder, LORA)


@pytest.fixture(scope="module")
def saved(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "adapter"
    student.save_adapter(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to break."""
    return shutil.copytree(saved, tmp_path / "adapter")


def change_config(folder, **changes) -> None:
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not ...}))


def change_tensors(folder, change) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


# Out


def test_the_files_are_pefts(student, saved, tiny_folder):
    assert {path.name for path in saved.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    text = (saved / "adapter_config.json").read_text()
    config = json.loads(text)
    assert config == {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(tiny_folder),
        "revision": None,
        "r": 4,
        "lora_alpha": 16,
        "lora_dropout": 0.1,
        "target_modules": ["down_proj", "q_proj", "v_proj"],
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "layers_to_transform": None,
        "layers_pattern": None,
    }
    assert text == json.dumps(config, indent=2, sort_keys=True) + "\n"


def test_the_tensors_are_pefts(student, saved):
    with safe_open(saved / "adapter_model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
    tensors = load_file(saved / "adapter_model.safetensors")
    assert len(tensors) == 2 * 3 * 2  # layers, maps, A and B
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())
    inner = student.adapter["layers"]
    q, down = inner["self_attn"]["q_proj"], inner["mlp"]["down_proj"]
    assert (tensors[Q].shape, tensors[Q.replace("lora_A", "lora_B")].shape) == ((4, 48), (48, 4))
    np.testing.assert_array_equal(tensors[Q], q["lora_A"][1])
    key = "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight"
    np.testing.assert_array_equal(tensors[key], down["lora_B"][0])


def test_same_adapter_same_bytes(student, saved, tmp_path):
    student.save_adapter(tmp_path)
    for path in saved.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_file_that_reads_back_differently_is_an_error(student, tmp_path, monkeypatch):
    """What a safetensors writer does with views that are not contiguous: the right shapes, the wrong numbers."""

    def corrupt(tensors, path, metadata):
        save_file({name: tensor[::-1].copy() for name, tensor in tensors.items()}, path, metadata=metadata)

    monkeypatch.setattr(adapters, "save_file", corrupt)
    with pytest.raises(OSError, match="reads back differently"):
        student.save_adapter(tmp_path)
    assert not (tmp_path / "adapter_config.json").exists(), "a broken adapter must not look whole"


# In


def test_an_adapter_comes_back_bit_for_bit(student, saved, tiny_folder):
    again = load_student(str(tiny_folder), adapter=saved)
    jax.tree.map(np.testing.assert_array_equal, student.adapter, again.adapter)
    assert again.lora.plans(2) == LORA.plans(2)
    assert (again.lora.r, again.lora.lora_alpha, again.lora.lora_dropout) == (4, 16, 0.1)
    np.testing.assert_array_equal(student.logits(TOKENS), again.logits(TOKENS))


def test_another_adapter_replaces_rank_and_targets(student, saved, tiny_folder):
    other = load_student(str(tiny_folder), lora=LoraConfig(r=2, target_modules="up_proj"))
    other.load_adapter(saved)
    np.testing.assert_array_equal(student.logits(TOKENS), other.logits(TOKENS))


@pytest.mark.parametrize("path", ["self_attn.{}", "model.layers.{layer}.self_attn.{}"])
def test_target_modules_as_paths(student, folder, tiny_folder, path):
    """PEFT saves "all-linear" as the full path of each map, and matches any suffix."""
    targets = [path.format(name, layer=layer) for name in ("q_proj", "v_proj") for layer in (0, 1)]
    change_config(folder, target_modules=[*targets, "down_proj"])
    again = load_student(str(tiny_folder), adapter=folder)
    jax.tree.map(np.testing.assert_array_equal, student.adapter, again.adapter)


def test_fields_that_peft_may_leave_out_have_its_defaults(folder):
    change_config(folder, r=..., lora_alpha=..., lora_dropout=..., use_rslora=..., bias=..., rank_pattern=...)
    lora = adapters.read_lora_config(folder)
    assert (lora.r, lora.lora_alpha, lora.lora_dropout, lora.use_rslora) == (8, 8, 0.0, False)


@pytest.mark.parametrize(
    "changes",
    [
        {"modules_to_save": ["lm_head"]},
        {"fan_in_fan_out": True},
        {"bias": "all"},
        {"target_parameters": ["experts"]},
        {"layers_pattern": "blocks"},  # fits no layer of this tree
        {"alora_invocation_tokens": [1, 2]},  # applies the update to some positions only
        {"use_qalora": True},
        {"init_lora_weights": "pissa"},  # belongs to a base with the principal part taken out
        {"init_lora_weights": "olora"},
        {"peft_type": "LOHA"},
    ],
    ids=lambda changes: "-".join(f"{name}={value}" for name, value in changes.items()),
)
def test_what_is_not_computed_here_is_refused(folder, changes):
    change_config(folder, **changes)
    (name,) = changes
    with pytest.raises(InputError, match=name):
        adapters.read_lora_config(folder)


@pytest.mark.parametrize("value", [True, False, "gaussian"])
def test_initial_values_that_leave_the_base_alone_are_accepted(folder, value):
    change_config(folder, init_lora_weights=value)
    adapters.read_lora_config(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", '{"peft_type": "LORA"}', '{"peft_type": "LORA", "target_modules": null}']
)
def test_a_broken_config_is_named(folder, text):
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(
        InputError,
        match=r"adapter_config\.json: (not readable as JSON|expected a JSON object|not a readable PEFT|target_modules is not given)",
    ):
        adapters.read_lora_config(folder)


def test_a_folder_without_a_config(tmp_path):
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        adapters.read_lora_config(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(Q), rf"missing \['{Q}'\], unexpected \[\]"),
        (lambda tensors: tensors.update(extra=tensors[Q]), r"missing \[\], unexpected \['extra'\]"),
        (
            lambda tensors: tensors.update({Q.replace("q_proj", "k_proj"): tensors[Q]}),
            r"unexpected \['base_model.*k_proj",
        ),
        (lambda tensors: tensors.update({Q: tensors[Q].T.copy()}), r"has shape \(48, 4\), expected \(4, 48\)"),
        (lambda tensors: tensors.update({Q: tensors[Q][:2].copy()}), r"has shape \(2, 48\), expected \(4, 48\)"),
    ],
    ids=["missing", "extra", "not-a-target", "transposed", "rank"],
)
def test_tensors_that_do_not_fit_are_named(folder, tiny_folder, change, message):
    change_tensors(folder, change)
    with pytest.raises(InputError, match=rf"adapter_model\.safetensors: .*{message}"):
        load_student(str(tiny_folder), adapter=folder)


def test_targets_that_leave_out_tensors_of_the_file(folder, tiny_folder):
    """PEFT drops them in silence."""
    change_config(folder, target_modules=["q_proj", "v_proj"])
    with pytest.raises(InputError, match=r"unexpected \['base_model.*down_proj"):
        load_student(str(tiny_folder), adapter=folder)


def test_pickled_adapters_are_not_read(folder, tiny_folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(InputError, match=r"pickled adapters \(\.bin\) are not read"):
        load_student(str(tiny_folder), adapter=folder)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_adapter_is_named(folder, tiny_folder, keep):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_student(str(tiny_folder), adapter=folder)


def test_a_refused_adapter_leaves_the_student_as_it_was(folder, tiny_folder):
    other = trained_student(tiny_folder, LoraConfig(r=2, target_modules="up_proj"))
    before = np.asarray(other.logits(TOKENS))
    change_tensors(folder, lambda tensors: tensors.pop(Q))
    with pytest.raises(InputError):
        other.load_adapter(folder)
    assert other.lora.r == 2
    np.testing.assert_array_equal(other.logits(TOKENS), before)
