"""An adapter means the same to PEFT as to the student, in both directions."""

import json
import shutil
import warnings

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import peft
import torch
from safetensors.torch import save_file
from students import trained_student
from torch_models import TOKENS, reference, reference_logits

from kdjax.errors import InputError
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


# One field of adapter_config.json at a time: PEFT's logits, or a refusal that names the field
EQUAL = "equal to PEFT"
EDITS = [
    ({}, EQUAL),
    ({"lora_alpha": 4}, EQUAL),
    ({"lora_dropout": 0.5}, EQUAL),
    ({"lora_dropout": None}, "lora_dropout"),
    ({"use_rslora": True}, EQUAL),
    ({"use_dora": True}, "lora_magnitude_vector"),
    ({"alpha_pattern": {"q_proj": 2}}, EQUAL),
    ({"alpha_pattern": {"q_pro": 2}}, EQUAL),  # an ending of the path has to be matched whole
    ({"alpha_pattern": {"proj": 2}}, EQUAL),
    ({"rank_pattern": {"q_proj": 2}}, "expected (2, 48)"),
    ({"r": 8}, "expected (8, 48)"),
    ({"target_modules": ["q_proj", "v_proj", "c_attn"]}, EQUAL),
    ({"target_modules": r".*\.(q|v)_proj"}, EQUAL),
    ({"target_modules": r".*\.(q|v)_pro"}, "target_modules"),  # PEFT matches the whole path, too
    ({"target_modules": r"odel\.layers.*(q|v)_proj"}, "target_modules"),
    ({"target_modules": ["q_proj"]}, "v_proj"),
    ({"exclude_modules": ["lm_head"]}, EQUAL),
    ({"exclude_modules": ["q_proj"]}, "q_proj"),
    ({"layers_to_transform": [0, 1]}, EQUAL),
    ({"layers_to_transform": [0, 1], "layers_pattern": "layers"}, EQUAL),
    ({"layers_to_transform": [0, 1], "layers_pattern": "h"}, "layers_pattern"),
    ({"layers_to_transform": [0]}, "layers.1"),
    ({"init_lora_weights": None}, EQUAL),
    ({"init_lora_weights": False}, EQUAL),
    ({"init_lora_weights": "gaussian"}, EQUAL),
    ({"init_lora_weights": "orthogonal"}, EQUAL),
    ({"init_lora_weights": "pissa"}, "init_lora_weights"),
    ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
    ({"init_lora_weights": "olora"}, "init_lora_weights"),
    ({"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}, "init_lora_weights"),
    ({"init_lora_weights": "corda"}, "init_lora_weights"),
    ({"init_lora_weights": "lora_ga"}, "init_lora_weights"),
    ({"init_lora_weights": "mica"}, "init_lora_weights"),
    ({"bias": "all"}, "bias"),
    ({"bias": "lora_only"}, "bias"),
    ({"lora_bias": True}, "lora_bias"),
    ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    ({"modules_to_save": []}, EQUAL),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"trainable_token_indices": [1]}, "trainable_token_indices"),
    ({"target_parameters": ["mlp.up_proj.weight"]}, "target_parameters"),
    ({"layer_replication": [[0, 2], [0, 2]]}, "layer_replication"),
    ({"megatron_config": {"hidden_size": 8}}, "megatron_config"),
    ({"megatron_core": "megatron.core"}, EQUAL),
    ({"use_qalora": True}, "use_qalora"),
    ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
    ({"arrow_config": {"top_k": 3}}, "arrow_config"),
    ({"kasa_config": {"beta": 0.1}}, "kasa_config"),
    ({"use_bdlora": {"nblocks": 2}}, "use_bdlora"),
    ({"monteclora_config": {"num_samples": 2}}, "monteclora_config"),
    ({"ensure_weight_tying": True}, "ensure_weight_tying"),
    ({"a_method_of_next_year": True}, "a_method_of_next_year"),
    ({"runtime_config": {"ephemeral_gpu_offload": False}}, EQUAL),
    ({"inference_mode": False, "task_type": None, "revision": "main"}, EQUAL),
]


@pytest.fixture(scope="module")
def adapter(llama_folder, tmp_path_factory):
    """An adapter that PEFT saved, of q_proj and v_proj."""
    torch.manual_seed(0)
    settings = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
    folder = tmp_path_factory.mktemp("peft") / "adapter"
    peft.get_peft_model(reference(llama_folder), peft.LoraConfig(**settings)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("edit", "outcome"), EDITS, ids=[json.dumps(edit) for edit, _ in EDITS])
def test_a_field_of_adapter_config_json(edit, outcome, adapter, llama_folder, tmp_path):
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    if outcome == EQUAL:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of entries that fit nothing, and of what counts at run time alone
            model = peft.PeftModel.from_pretrained(reference(llama_folder), folder)
        assert largest_difference(load_student(str(llama_folder), adapter=folder), model) < 1e-4
    else:
        with pytest.raises(InputError) as error:
            load_student(str(llama_folder), adapter=folder)
        assert outcome in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_keys_with_the_adapters_name(settings, llama_folder, tmp_path):
    """As a model that holds the adapter names its parameters; PEFT loads these, too."""
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, **settings)
    model = peft.get_peft_model(reference(llama_folder), config)
    model.save_pretrained(tmp_path)
    named = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if "lora_" in name}
    assert named and all(".default" in name for name in named)
    save_file(named, tmp_path / "adapter_model.safetensors")
    student = load_student(str(llama_folder), adapter=tmp_path)
    assert largest_difference(student, peft.PeftModel.from_pretrained(reference(llama_folder), tmp_path)) < 1e-4
    assert largest_difference(student, model) < 1e-4


@pytest.mark.real
def test_our_adapter_of_the_real_model_in_peft(tmp_path):
    from transformers import AutoModelForCausalLM

    from kdjax.sources import DEFAULT_MODEL, resolve

    student = trained_student(DEFAULT_MODEL, LoraConfig(r=16, lora_alpha=32))
    student.save_adapter(tmp_path)
    gguf = resolve(DEFAULT_MODEL).gguf
    base = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    assert largest_difference(student, peft.PeftModel.from_pretrained(base, tmp_path)) < 1e-3
