"""An adapter means the same to PEFT as to the student, in both directions."""

import warnings

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import peft
import torch
from students import trained_student
from torch_models import TOKENS, reference, reference_logits

from kdjax.student import LoraConfig, load_student
from kdjax.student.adapters import peft_tensors

PATTERNS = {"rank_pattern": {"q_proj": 6, r"1\.mlp\..*": 2}, "alpha_pattern": {"0.self_attn.q_proj": 4, "v_proj": 32}}
SETTINGS = {
    "all-linear": {"r": 4, "lora_alpha": 16, "target_modules": "all-linear"},
    "rslora": {"r": 3, "lora_alpha": 2, "target_modules": ["q_proj", "v_proj"], "use_rslora": True},
    "dora": {"r": 4, "lora_alpha": 16, "target_modules": "all-linear", "use_dora": True},
    "patterns": {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"], **PATTERNS},
    "dora-rslora-patterns": {
        "r": 4,
        "lora_alpha": 2,
        "target_modules": "all-linear",
        "exclude_modules": ["o_proj", "0.mlp.down_proj"],
        "use_dora": True,
        "use_rslora": True,
        **PATTERNS,
    },
    "regex": {"target_modules": r".*layers\.0.*\.(q|v)_proj", "exclude_modules": r".*v_proj", "lora_alpha": 32},
    "exceptions-elsewhere": {"target_modules": "all-linear", "exclude_modules": ["lm_head"], "lora_alpha": 2},
    "one-path-and-a-layer": {
        "target_modules": ["model.layers.1.self_attn.k_proj", "mlp.up_proj"],  # a whole path is meant wherever it is
        "layers_to_transform": [0],
        "lora_alpha": 32,
    },
    "one-layer": {"target_modules": ["mlp.up_proj", "k_proj"], "layers_to_transform": [1], "lora_alpha": 32},
}


def largest_difference(student, model) -> float:
    return np.abs(np.asarray(student.logits(TOKENS)) - reference_logits(model.eval(), TOKENS)).max()


@pytest.fixture(scope="module")
def base_logits(llama_folder):
    return reference_logits(reference(llama_folder), TOKENS)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_our_adapter_in_peft(llama_folder, tmp_path, base_logits, settings):
    student = trained_student(llama_folder, LoraConfig(**settings))
    student.save_adapter(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PEFT warns, and no more, of keys that it misses or does not know
        model = peft.PeftModel.from_pretrained(reference(llama_folder), tmp_path)
    assert largest_difference(student, model) < 1e-4
    assert np.abs(np.asarray(student.logits(TOKENS)) - base_logits).max() > 0.1, "the adapter does nothing"


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_pefts_adapter_in_the_student(llama_folder, tmp_path, base_logits, settings):
    config = peft.LoraConfig(task_type="CAUSAL_LM", **settings)
    torch.manual_seed(0)
    model = peft.get_peft_model(reference(llama_folder), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
            if "magnitude" in name:
                parameter.mul_(1.2)
    model.save_pretrained(tmp_path)
    student = load_student(str(llama_folder), adapter=tmp_path)
    assert largest_difference(student, model) < 1e-4
    assert np.abs(np.asarray(student.logits(TOKENS)) - base_logits).max() > 0.1, "the adapter does nothing"


def test_a_bfloat16_adapter_is_read_as_float32(llama_folder, tmp_path):
    model = peft.get_peft_model(
        reference(llama_folder), peft.LoraConfig(init_lora_weights=False, target_modules=["q_proj"])
    )
    for name, parameter in model.named_parameters():
        if "lora" in name:
            parameter.data = parameter.data.bfloat16()
    model.save_pretrained(tmp_path)
    student = load_student(str(llama_folder), adapter=tmp_path)
    assert student.adapter["layers"]["self_attn"]["q_proj"]["lora_A"].dtype == np.float32
    assert largest_difference(student, peft.PeftModel.from_pretrained(reference(llama_folder), tmp_path)) < 1e-4


def test_the_initial_bound_is_pefts(llama_folder):
    """The two draws differ; the ranges that they are drawn from do not."""
    ours = load_student(str(llama_folder), lora=LoraConfig(r=48)).adapter["layers"]["mlp"]["down_proj"]
    model = peft.get_peft_model(reference(llama_folder), peft.LoraConfig(r=48, target_modules=["down_proj"]))
    theirs = [p for name, p in model.named_parameters() if "lora_A" in name]
    for layer, parameter in enumerate(theirs):
        assert np.abs(ours["lora_A"][layer]).max() == pytest.approx(float(parameter.detach().abs().max()), rel=0.01)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "c_attn"]},
        {"target_modules": ["q_proj"], "exclude_modules": ".*(vision|lm_head).*"},
        {"target_modules": ["q_proj"], "rank_pattern": {"c_attn": 2}},
        {"target_modules": ["q_proj"], "layers_to_transform": []},
        {"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "layers"},
    ],
    ids=["targets", "exception", "pattern", "no-layers", "layers-pattern"],
)
def test_entries_that_fit_nothing_in_pefts_adapter_are_no_reason_to_refuse_it(llama_folder, tmp_path, settings):
    """A person's misspelling is refused; a file's tensors say what is adapted."""
    model = peft.get_peft_model(reference(llama_folder), peft.LoraConfig(init_lora_weights=False, **settings))
    model.save_pretrained(tmp_path)
    assert largest_difference(load_student(str(llama_folder), adapter=tmp_path), model) < 1e-4


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_same_maps_and_ranks_as_peft(llama_folder, settings):
    """Names, shapes and DoRA's first magnitudes of a fresh adapter."""
    model = peft.get_peft_model(reference(llama_folder), peft.LoraConfig(task_type="CAUSAL_LM", **settings))
    theirs = peft.get_peft_model_state_dict(model)
    lora = LoraConfig(**settings)
    ours = peft_tensors(load_student(str(llama_folder), lora=lora).adapter, lora)
    assert {name: tensor.shape for name, tensor in ours.items()} == {n: tuple(t.shape) for n, t in theirs.items()}
    for name, tensor in ours.items():
        if "magnitude" in name:
            np.testing.assert_allclose(tensor, theirs[name].numpy(), rtol=1e-5)


@pytest.mark.real
def test_our_adapter_of_the_real_model_in_peft(tmp_path):
    from transformers import AutoModelForCausalLM

    from kdjax.sources import DEFAULT_MODEL, resolve

    student = trained_student(DEFAULT_MODEL, LoraConfig(r=16, lora_alpha=32))
    student.save_adapter(tmp_path)
    gguf = resolve(DEFAULT_MODEL).gguf
    base = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    assert largest_difference(student, peft.PeftModel.from_pretrained(base, tmp_path)) < 1e-3
