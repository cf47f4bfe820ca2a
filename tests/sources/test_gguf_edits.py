"""One field of a GGUF header is changed at a time: what comes out is right, or an error names the field.

The right values are by hand: a field is neutral, as in llama.cpp, or it says what the tokens are.
"""

import pytest
from gguf import TokenType
from gguf_helpers import HEAD_DIM, SPECIAL, byte_level_tokenizer, hf_weights, write_gguf

from kdjax.errors import InputError
from kdjax.sources import load_tokenizer, read_config, resolve
from kdjax.sources.gguf_metadata import ARCHITECTURE, TOKENIZER

ORIGINAL = byte_level_tokenizer()
SIZE = ORIGINAL.get_vocab_size()
TOKENS = sorted(ORIGINAL.get_vocab(), key=ORIGINAL.get_vocab().get)
TEXT = "<|im_start|>the  shopper's 12 products, café<|im_end|>\n"
L, T = "llama.", "tokenizer.ggml."


def types(kind: TokenType, *ids: int) -> dict:
    """Each token typed as normal, but `ids`, and the other special tokens as they are."""
    kinds = [TokenType.CONTROL if i < len(SPECIAL) else TokenType.NORMAL for i in range(SIZE)]
    for i in ids:
        kinds[i] = kind
    return {f"{T}token_type": [int(kind) for kind in kinds]}


@pytest.fixture(scope="module")
def weights():
    return hf_weights(SIZE)


def read(tmp_path, weights, metadata: dict, **more):
    files = resolve(str(write_gguf(tmp_path / "model.gguf", weights, ORIGINAL, metadata=metadata, **more)))
    return read_config(files), load_tokenizer(files)


# Fields that change nothing at these values.
NEUTRAL = {
    f"{L}vocab_size": SIZE,
    f"{L}tensor_data_layout": "Meta AI original pth",
    f"{L}attention.key_length": HEAD_DIM,
    f"{L}attention.value_length": HEAD_DIM,
    f"{L}attention.causal": True,
    f"{L}attention.sliding_window": 512,
    f"{L}attention.clamp_kqv": 0.0,
    f"{L}attention.scale": 0.0,
    f"{L}rope.dimension_count": HEAD_DIM,
    f"{L}rope.scale_linear": 1.0,
    f"{L}rope.scaling.type": "none",
    f"{L}rope.scaling.factor": 1.0,
    f"{L}rope.scaling.attn_factor": 1.0,
    f"{L}rope.scaling.original_context_length": 256,
    f"{L}expert_count": 0,
    f"{L}use_parallel_residual": False,
    f"{L}logit_scale": 1.0,
    f"{T}add_space_prefix": False,
    f"{T}add_bos_token": True,
    f"{T}padding_token_id": 7,
    f"{T}unknown_token_id": 5,
    f"{T}scores": [0.0] * SIZE,
    "tokenizer.chat_template.tool_use": "tools",
    "tokenizer.chat_templates": ["tool_use"],
    "general.type": "model",
    "general.quantization_version": 2,
    "general.file_type": 7,
    "general.license": "mit",
    "quantize.imatrix.file": "x.dat",
    "split.count": 1,
    "somebody.own": "field",
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_field_that_changes_nothing(name, tmp_path, weights):
    config, tokenizer = read(tmp_path, weights, {name: NEUTRAL[name]})
    assert (config["head_dim"], config["rope_parameters"]["rope_type"]) == (HEAD_DIM, "default")
    assert tokenizer.encode(TEXT) == ORIGINAL.encode(TEXT).ids
    assert tokenizer.eos_ids == (2,)
    assert tokenizer.render([{"role": "user", "content": "hi"}]) == "<|im_start|>user\nhi<|im_end|>\n"


# Fields that would have to be followed: (value, what the error says beside the name).
REFUSED = {
    f"{L}vocab_size": (SIZE + 1, "not supported"),
    f"{L}tensor_data_layout": ("reference", "not supported"),
    f"{L}attention.value_length": (8, "is 8"),
    f"{L}attention.layer_norm_epsilon": (1e-5, "not known"),
    f"{L}attention.causal": (False, "is False"),
    f"{L}attention.sliding_window": (64, "is 64"),
    f"{L}attention.clamp_kqv": (8.0, "is 8.0"),
    f"{L}attention.max_alibi_bias": (8.0, "is 8.0"),
    f"{L}attention.scale": (0.015625, "not supported"),
    f"{L}attention.temperature_length": (8192, "not known"),
    f"{L}rope.dimension_count": (8, "is 8"),
    f"{L}rope.scale_linear": (4.0, "is 4.0"),
    f"{L}rope.scaling.type": ("linear", "is 'linear'"),
    f"{L}rope.scaling.factor": (4.0, "is 4.0"),
    f"{L}rope.scaling.attn_factor": (1.5, "is 1.5"),
    f"{L}rope.scaling.yarn_log_multiplier": (0.1, "not supported"),
    f"{L}rope.scaling.yarn_ext_factor": (1.0, "not known"),
    f"{L}rope.freq_base_swa": (10000.0, "not known"),
    f"{L}rope.dimension_sections": ([4, 4], "not known"),
    f"{L}expert_count": (8, "is 8"),
    f"{L}expert_used_count": (2, "is 2"),
    f"{L}use_parallel_residual": (True, "is True"),
    f"{L}logit_scale": (8.0, "is 8.0"),
    f"{L}embedding_scale": (12.0, "is 12.0"),
    f"{L}residual_scale": (0.25, "is 0.25"),
    f"{L}attn_logit_softcapping": (50.0, "is 50.0"),
    f"{L}final_logit_softcapping": (30.0, "is 30.0"),
    f"{L}pooling_type": (1, "is 1"),
    f"{L}a_new_field": (0, "not known"),
    f"{L}attention.a_new_field": (1, "not known"),
    f"{T}pre": (..., "is 'missing'"),
    f"{T}add_space_prefix": (True, "is True"),
    f"{T}remove_extra_whitespaces": (True, "is True"),
    f"{T}precompiled_charsmap": ([1, 2], "not known"),
    f"{T}eos_token_ids": ([1, 2], "not known"),
    f"{T}model": ("llama", "'llama' is not supported"),
    f"{T}eot_token_id": (SIZE, f"is {SIZE}"),
    f"{T}eom_token_id": (2**32 - 1, "is 4294967295"),
    "general.type": ("adapter", "is 'adapter'"),
    "general.quantization_version": (1, "is 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_field_that_would_have_to_be_followed(name, tmp_path, weights):
    value, words = REFUSED[name]
    with pytest.raises(InputError) as error:
        read(tmp_path, weights, {name: value})
    assert words in str(error.value)
    assert (name in str(error.value)) or name == f"{T}model"


def test_a_pre_tokenizer_of_default_is_refused(tmp_path, weights):
    with pytest.raises(InputError, match=r"tokenizer\.ggml\.pre is 'default'"):
        read(tmp_path, weights, {}, pre="default")


def test_every_field_that_is_checked_has_an_edit():
    tried = NEUTRAL.keys() | REFUSED.keys()
    checked = {f"llama.{name}" for name, check in ARCHITECTURE.items() if check.__name__ != "_any"}
    checked |= {f"tokenizer.{name}" for name, check in TOKENIZER.items() if check.__name__ != "_any"}
    assert checked <= tried


@pytest.mark.parametrize(
    ("fields", "ends"),
    [
        ({f"{T}eot_token_id": 0}, (2, 0)),
        ({f"{T}eom_token_id": 1}, (2, 1)),
        ({f"{T}eot_token_id": 0, f"{T}eom_token_id": 1}, (2, 0, 1)),
        ({f"{T}eot_token_id": 2}, (2,)),
        ({f"{T}eos_token_id": 0, f"{T}eot_token_id": 2}, (0, 2)),
        ({f"{T}eos_token_id": 0}, (0, 2)),  # <|im_end|> ends a turn by its text, where the file names no end of turn
        ({f"{T}eos_token_id": 0, f"{T}eot_token_id": 1}, (0, 1)),
    ],
)
def test_what_ends_a_turn(fields, ends, tmp_path, weights):
    config, tokenizer = read(tmp_path, weights, fields)
    assert tokenizer.eos_ids == ends
    assert config["eos_token_id"] == (list(ends) if len(ends) > 1 else ends[0])


@pytest.mark.parametrize("kind", [TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNKNOWN, TokenType.UNUSED])
def test_special_tokens_are_special_whatever_their_type(kind, tmp_path, weights):
    """0 is named alone (end of turn), 1 and 2 are named and in the template."""
    _, tokenizer = read(tmp_path, weights, types(kind, 0, 1, 2) | {f"{T}eot_token_id": 0})
    assert tokenizer.encode(TEXT) == ORIGINAL.encode(TEXT).ids
    assert tokenizer.decode(tokenizer.encode("<|im_start|>a<|endoftext|>")) == "a"
    assert tokenizer.escape("".join(SPECIAL)) == "".join(f"< {token[1:]}" for token in SPECIAL)


@pytest.mark.parametrize("kind", [TokenType.NORMAL, TokenType.USER_DEFINED])
def test_a_token_that_only_the_template_names(kind, tmp_path, weights):
    """As a start the file names another token, so <|im_start|> stands in the template alone; so does the word "user"."""
    template = "{% for m in messages %}<|im_start|>the {{ m.content }}<|im_end|>{% endfor %}"
    _, tokenizer = read(
        tmp_path, weights, types(kind, 1) | {f"{T}bos_token_id": 0, "tokenizer.chat_template": template}
    )
    assert tokenizer.encode(TEXT) == ORIGINAL.encode(TEXT).ids
    assert tokenizer.escape("the <|im_start|>") == "the < |im_start|>"
    assert "the" in TOKENS, "else this would not try that a word of the template stays a word"
    special = {token.content for token in tokenizer.inner.get_added_tokens_decoder().values()}
    assert special == set(SPECIAL)


def test_a_normal_token_that_nothing_names_stays_text(tmp_path, weights):
    _, tokenizer = read(
        tmp_path, weights, types(TokenType.NORMAL, 1) | {f"{T}bos_token_id": 0, "tokenizer.chat_template": "x"}
    )
    assert 1 not in tokenizer.encode("<|im_start|>")
    assert tokenizer.decode(tokenizer.encode("<|im_start|>")) == "<|im_start|>"


def test_a_token_typed_unknown_is_special_without_a_name(tmp_path, weights):
    _, tokenizer = read(
        tmp_path, weights, types(TokenType.UNKNOWN, 1) | {f"{T}bos_token_id": 0, "tokenizer.chat_template": "x"}
    )
    assert tokenizer.encode(TEXT) == ORIGINAL.encode(TEXT).ids
    assert tokenizer.decode(tokenizer.encode("<|im_start|>a")) == "a"


def test_a_window_of_0_is_none(tmp_path, weights):
    read(tmp_path, weights, {f"{L}attention.sliding_window": 0})


def test_a_part_of_a_split_file_is_named(tmp_path, weights):
    with pytest.raises(InputError, match="one of 3 parts of a model; join them"):
        read(tmp_path, weights, {"split.no": 0, "split.count": 3, "split.tensors.count": 20})


def test_a_token_type_that_is_not_known(tmp_path, weights):
    with pytest.raises(InputError, match=r"tokenizer\.ggml\.token_type has the unknown type 9"):
        read(tmp_path, weights, {f"{T}token_type": [9] * SIZE})


def test_a_token_that_is_there_twice(tmp_path, weights):
    with pytest.raises(InputError, match=r"the token '<\|endoftext\|>' is twice"):
        read(tmp_path, weights, {f"{T}tokens": [*TOKENS[:-1], TOKENS[0]]})
