"""One field of config.json or generation_config.json is edited at a time: the student is what transformers makes of it, or refuses.

Of each edit one of three things must be so, and a silent difference is none of them:

* transformers loads the folder, and the student's logits are equal;
* the student is refused by an InputError that names the field, or the tensors that do not fit it;
* transformers itself refuses, for a field that has no say in what is computed: the student is that of the unedited folder.
"""

import json
import shutil
from functools import cache

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from huggingface_hub.errors import StrictDataclassError
from torch_models import reference, reference_logits, save_model

from kdjax.errors import InputError
from kdjax.sources import load_tokenizer, resolve
from kdjax.student import load_student

TOKENS = np.random.default_rng(0).integers(3, 259, (1, 48)).astype(np.int32)
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
BASES = {
    "llama": {},
    "mha": {"num_key_value_heads": 4, "tie_word_embeddings": False},
    "mistral": {"model_type": "mistral", "sliding_window": 16},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "linear": {"rope_parameters": LINEAR, "head_dim": 16},
    "yarn": {"rope_parameters": YARN, "head_dim": 16},
    "llama3": {"rope_parameters": LLAMA3, "head_dim": 16},
}
WINDOWS, FULL = ["sliding_attention"] * 2, ["full_attention"] * 2
MIXED = ["full_attention", "sliding_attention"]
EQUAL, UNREAD = "equal to transformers", "transformers refuses; nothing that is computed"

# base → (edit of config.json or, by a first field "rope", of its rope_parameters; outcome, or the words of the refusal)
EDITS: dict[str, list[tuple[dict, str]]] = {
    "llama": [
        ({}, EQUAL),
        ({"hidden_act": ...}, EQUAL),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"hidden_act": None}, "hidden_act=None"),
        ({"rms_norm_eps": 0.1}, EQUAL),
        ({"rms_norm_eps": ...}, "rms_norm_eps"),
        ({"rms_norm_eps": None}, "rms_norm_eps"),
        ({"vocab_size": None}, "vocab_size"),
        ({"vocab_size": 260}, "config.json asks for (260, 48)"),
        ({"hidden_size": 64}, "config.json asks for (259, 64)"),
        ({"intermediate_size": 95}, "config.json asks for"),
        ({"num_hidden_layers": 1}, "unexpected: model.layers.1."),
        ({"num_hidden_layers": 3}, "missing: model.layers.2."),
        ({"num_attention_heads": 2}, "config.json asks for (48, 24)"),
        ({"num_key_value_heads": None}, "config.json asks for (48, 48)"),
        ({"num_key_value_heads": 3}, "key_value_heads"),
        ({"head_dim": None}, EQUAL),
        ({"head_dim": ...}, EQUAL),
        ({"head_dim": 8}, "config.json asks for"),
        ({"attention_bias": True}, "q_proj.bias"),
        ({"attention_bias": None}, "attention_bias"),
        ({"mlp_bias": True}, "up_proj.bias"),
        ({"mlp_bias": None}, "mlp_bias"),
        ({"tie_word_embeddings": False}, "missing: lm_head.weight"),
        ({"tie_word_embeddings": None}, "tie_word_embeddings"),
        ({"max_position_embeddings": None}, "max_position_embeddings"),
        ({"max_position_embeddings": 20}, EQUAL),
        ({"is_causal": False}, "is_causal=False"),
        ({"is_causal": None}, "is_causal=None"),
        ({"per_layer_config": {"0": {"rms_norm_eps": 0.5}}}, "per_layer_config"),
        ({"text_config": {"hidden_size": 8}}, "text_config"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"quantization_config": {}}, "quantization_config"),
        ({"transformers_weights": "other.safetensors"}, "transformers_weights"),
        ({"model_type": "mistral"}, "model_type='mistral'"),
        ({"model_type": "gemma"}, "model_type='gemma'"),
        ({"model_type": None}, "model_type=None"),
        ({"model_type": ...}, UNREAD),
        ({"architectures": ["LlamaForSequenceClassification"]}, "'LlamaForSequenceClassification'"),
        ({"architectures": ...}, "architecture None"),
        ({"sliding_window": 16}, "sliding_window=16"),  # transformers' cache heeds it, its mask does not
        ({"sliding_window": None}, EQUAL),
        ({"layer_types": FULL}, EQUAL),
        ({"layer_types": WINDOWS}, "layer_types"),
        ({"layer_types": ["chunked_attention"] * 2}, "layer_types"),
        ({"layer_types": FULL[:1]}, "layer_types"),
        ({"layer_types": []}, "layer_types"),
        ({"rope_theta": 500.0}, EQUAL),  # of no meaning beside the theta in rope_parameters
        ({"rope_theta": None}, EQUAL),
        ({"rope_parameters": None}, EQUAL),
        ({"rope_parameters": ..., "rope_theta": 500.0}, EQUAL),
        ({"rope_parameters": ..., "rope_theta": None}, "rope_theta"),
        ({"rope_parameters": {"rope_theta": 500.0}}, EQUAL),
        ({"rope_parameters": {"full_attention": {"rope_theta": 500.0}}}, "full_attention"),
        ({"rope_scaling": {}}, EQUAL),
        ({"rope_scaling": {"type": "default"}}, EQUAL),
        ({"rope_scaling": LINEAR}, "rope_parameters and rope_scaling"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_parameters and rope_scaling"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"partial_rotary_factor": None}, EQUAL),
        ({"original_max_position_embeddings": 8}, EQUAL),
        ({"pretraining_tp": 2}, EQUAL),
        ({"attention_dropout": 0.5}, EQUAL),
        ({"embedding_multiplier": 3.0, "residual_multiplier": 2.0, "logits_scaling": 2.0}, EQUAL),  # Granite's
        ({"attn_logit_softcapping": 5.0}, EQUAL),  # Gemma's
        ({"dtype": "bfloat16"}, EQUAL),
        ({"torch_dtype": "float16"}, EQUAL),
        ({"use_cache": None}, UNREAD),
        ({"initializer_range": None}, UNREAD),
        ({"_attn_implementation": "flash_attention_2"}, UNREAD),
    ],
    "mha": [
        ({}, EQUAL),
        ({"num_key_value_heads": ...}, EQUAL),
        ({"num_key_value_heads": None}, EQUAL),
        ({"num_key_value_heads": ..., "num_attention_heads": 2, "head_dim": ...}, EQUAL),
        ({"tie_word_embeddings": True}, "lm_head.weight is not the embedding"),
    ],
    "mistral": [
        ({}, EQUAL),
        ({"sliding_window": None}, EQUAL),
        ({"sliding_window": ...}, EQUAL),
        ({"sliding_window": 1}, EQUAL),
        ({"sliding_window": 0}, "sliding_window"),
        ({"layer_types": WINDOWS}, EQUAL),
        ({"layer_types": FULL}, EQUAL),
        ({"layer_types": MIXED}, "layer_types"),
        ({"layer_types": None}, EQUAL),
        ({"layer_types": WINDOWS, "sliding_window": None}, "layer_types"),
        ({"max_window_layers": 1}, EQUAL),
        ({"use_sliding_window": False}, EQUAL),
        ({"attention_bias": True}, "attention_bias"),
        ({"is_causal": False}, "is_causal"),
        ({"rope_scaling": YARN}, "rope_parameters and rope_scaling"),
    ],
    "qwen2": [
        ({}, EQUAL),
        ({"model_type": "llama"}, "model_type='llama'"),
        ({"layer_types": ...}, EQUAL),
        ({"layer_types": WINDOWS}, "layer_types"),
        ({"layer_types": ["linear_attention"] * 2}, "layer_types"),
        (
            {"use_sliding_window": True, "layer_types": ..., "sliding_window": 16},
            EQUAL,
        ),  # 28 layers without, by default
        ({"use_sliding_window": True, "layer_types": ..., "sliding_window": 16, "max_window_layers": 0}, EQUAL),
        ({"use_sliding_window": True, "layer_types": ..., "sliding_window": 16, "max_window_layers": 1}, "max_window"),
        ({"use_sliding_window": True, "layer_types": WINDOWS, "sliding_window": 16}, EQUAL),
        ({"use_sliding_window": True, "layer_types": WINDOWS, "sliding_window": None}, "layer_types"),
        ({"use_sliding_window": None}, "use_sliding_window"),
        ({"max_window_layers": None}, "max_window_layers"),
        ({"attention_bias": False}, EQUAL),
        ({"rope_parameters": {"full_attention": None}}, "full_attention"),
    ],
    "qwen3": [
        ({}, EQUAL),
        ({"model_type": "qwen2"}, "model_type='qwen2'"),
        ({"head_dim": ...}, "config.json asks for (128,)"),
        ({"attention_bias": True}, "q_proj.bias"),
        ({"layer_types": WINDOWS, "use_sliding_window": True, "sliding_window": 16}, EQUAL),
        ({"rope_scaling": YARN}, "rope_parameters and rope_scaling"),
    ],
    "linear": [
        ({}, EQUAL),
        ({"rope": {"factor": 2}}, EQUAL),
        ({"rope": {"factor": None}}, "factor"),
        ({"rope": {"factor": ...}}, "factor"),
        ({"rope": {"rope_type": None}}, "rope type None"),
        ({"rope": {"rope_type": ..., "type": "linear"}}, EQUAL),
        ({"rope": {"rope_type": ..., "type": None}}, "rope type None"),
        ({"rope": {"type": "default"}}, EQUAL),
        ({"rope": {"rope_type": "dynamic"}}, "rope type 'dynamic'"),
        ({"rope": {"rope_type": "default"}}, EQUAL),
        ({"rope": {"rope_theta": None}}, "rope_theta"),
        ({"rope": {"rope_theta": ...}, "rope_theta": 500.0}, EQUAL),
        ({"rope": {"partial_rotary_factor": None}}, "partial_rotary_factor"),
        ({"rope": {"partial_rotary_factor": 1.0}}, EQUAL),
        ({"rope": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_scaling": LINEAR}, EQUAL),  # the same twice
    ],
    "yarn": [
        ({}, EQUAL),
        ({"rope": {"factor": None}}, EQUAL),  # the ratio of the two lengths
        ({"rope": {"factor": ...}}, "factor"),
        ({"rope": {"factor": 0.5}}, EQUAL),
        ({"rope": {"truncate": False}}, EQUAL),
        ({"rope": {"truncate": None}}, "truncate"),
        ({"rope": {"beta_fast": None, "beta_slow": None}}, EQUAL),
        ({"rope": {"beta_fast": 0.5, "beta_slow": 4.0}}, EQUAL),  # a ramp that goes down
        ({"rope": {"beta_fast": 2.0, "beta_slow": 2.0, "truncate": False}}, EQUAL),
        ({"rope": {"attention_factor": 2}}, EQUAL),
        ({"rope": {"attention_factor": 0}}, "attention_factor"),
        ({"rope": {"mscale": 0.7}}, EQUAL),
        ({"rope": {"mscale": 0.7, "mscale_all_dim": 0.3}}, EQUAL),
        ({"rope": {"original_max_position_embeddings": None}}, "original_max_position_embeddings"),
        ({"rope": {"original_max_position_embeddings": ...}}, EQUAL),
        ({"original_max_position_embeddings": 16}, EQUAL),  # counts before the one in rope_parameters
        ({"original_max_position_embeddings": None}, "original_max_position_embeddings"),
        ({"rope": {"rope_theta": 1.0}}, "rope_theta"),
    ],
    "llama3": [
        ({}, EQUAL),
        ({"original_max_position_embeddings": 64}, EQUAL),
        ({"rope": {"original_max_position_embeddings": ...}}, EQUAL),
        ({"rope": {"low_freq_factor": None}}, "low_freq_factor"),
        ({"rope": {"low_freq_factor": ...}}, "low_freq_factor"),
        ({"rope": {"low_freq_factor": 2}}, EQUAL),
        ({"rope": {"high_freq_factor": 0.5}}, "high_freq_factor"),
        ({"rope": {"high_freq_factor": 1.0}}, "high_freq_factor"),
        ({"rope": {"rope_theta": ...}}, EQUAL),
    ],
}
CASES = [
    pytest.param(base, edit, outcome, id=f"{base}-{json.dumps(edit, default=lambda _: '...')}")
    for base, edits in EDITS.items()
    for edit, outcome in edits
]


def edited(settings: dict, changes: dict) -> dict:
    """The fields with the changes; ... takes one away."""
    return {name: value for name, value in (settings | changes).items() if value is not ...}


@pytest.fixture(scope="module")
def base_of(tmp_path_factory):
    """base_of(name): the folder of a base, and its logits in transformers."""

    @cache
    def base_of(name: str):
        folder = save_model(tmp_path_factory.mktemp(name) / "model", **BASES[name])
        return folder, of_transformers(folder)

    return base_of


def of_transformers(folder) -> np.ndarray:
    return reference_logits(reference(folder), TOKENS)


def of_student(folder) -> np.ndarray:
    return np.asarray(load_student(str(folder)).logits(TOKENS))


@pytest.mark.parametrize(("base", "edit", "outcome"), CASES)
def test_a_field_of_config_json(base, edit, outcome, base_of, tmp_path):
    original, unedited = base_of(base)
    folder = shutil.copytree(original, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    if "rope" in edit:
        config["rope_parameters"] = edited(config["rope_parameters"], edit["rope"])
    config = edited(config, {name: value for name, value in edit.items() if name != "rope"})
    (folder / "config.json").write_text(json.dumps(config))
    if outcome == EQUAL:
        np.testing.assert_allclose(of_student(folder), of_transformers(folder), rtol=0, atol=3e-4)
    elif outcome == UNREAD:
        with pytest.raises((ValueError, ImportError, StrictDataclassError)):
            reference(folder)
        np.testing.assert_allclose(of_student(folder), unedited, rtol=0, atol=3e-4)
    else:
        with pytest.raises(InputError) as error:
            load_student(str(folder))
        assert outcome in str(error.value) and str(folder) in str(error.value)


def test_the_edits_that_say_equal_change_what_is_computed(base_of, tmp_path):
    """Else they would prove nothing about windows, ramps and lengths."""
    changing = {
        "mistral": ({"sliding_window": None}, {"sliding_window": 1}, {"layer_types": FULL}),
        "qwen2": ({"use_sliding_window": True, "layer_types": WINDOWS, "sliding_window": 16},),
        "yarn": ({"original_max_position_embeddings": 16},),
        "llama3": ({"original_max_position_embeddings": 64},),
    }
    for base, edits in changing.items():
        original, unedited = base_of(base)
        for number, edit in enumerate(edits):
            folder = shutil.copytree(original, tmp_path / f"{base}-{number}")
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(edited(config, edit)))
            assert np.abs(of_transformers(folder) - unedited).max() > 0.1, (base, edit)


# End tokens: (config.json's eos_token_id, generation_config.json or None for no file); the tokenizer's own is token 2
ENDS = [
    (..., None),
    (3, None),
    ([3, 4], None),
    (None, None),
    ([], None),
    (3, {}),
    (3, {"eos_token_id": None}),
    (3, {"eos_token_id": []}),
    (3, {"eos_token_id": 7}),
    (3, {"eos_token_id": [7, 8]}),
    ([3, 4], {"eos_token_id": 3}),
    (..., {"eos_token_id": 7}),
    (-1, {"eos_token_id": 7}),
    (3, {"forced_eos_token_id": 9, "bos_token_id": 5, "pad_token_id": 6}),
]


@pytest.mark.parametrize(("config", "generation"), ENDS, ids=map(str, ENDS))
def test_a_turn_ends_where_transformers_ends_it_and_at_the_tokenizers_own_token(config, generation, base_of, tmp_path):
    folder = shutil.copytree(base_of("llama")[0], tmp_path / "model")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(edited(settings, {"eos_token_id": config})))
    (folder / "generation_config.json").unlink()
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    theirs = reference(folder).generation_config.eos_token_id
    theirs = theirs if isinstance(theirs, list) else [theirs] * (theirs is not None)
    ours = load_tokenizer(resolve(str(folder))).eos_ids
    assert ours[0] == 2 and set(ours) == {2, *theirs}


@pytest.mark.parametrize("ids", ["7", 7.0, True, -1, 999, [[7]]])
def test_an_end_token_that_is_none_is_named(ids, base_of, tmp_path):
    folder = shutil.copytree(base_of("llama")[0], tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    with pytest.raises(InputError, match="eos_token_id .* is not the id of a token"):
        load_tokenizer(resolve(str(folder)))
