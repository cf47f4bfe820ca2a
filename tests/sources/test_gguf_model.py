"""A GGUF file is read back as the Hugging Face model that it was written from."""

import numpy as np
import pytest
from gguf_helpers import (
    HEADS,
    INNER,
    KV_HEADS,
    SPECIAL,
    TEMPLATE,
    byte_level_tokenizer,
    hf_weights,
    write_gguf,
)
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

from kdjax.errors import InputError
from kdjax.sources import load_tokenizer, open_weights, read_config, resolve
from kdjax.sources.gguf_model import LLAMA3_PATTERN
from kdjax.sources.gguf_reader import read_gguf

TEXTS = (
    "the shopper's 12 products of 2024",
    "  two  spaces,\n\nlines\tand tabs ",
    "café, naïve, 日本語, עברית, 🙂👩‍👩‍👧",
    "<|im_start|>user\n128 GB<|im_end|>\n",
    "don't THEY'LL we've 3.14159 [[1,3],[2,5,6]]",
)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return byte_level_tokenizer()


@pytest.fixture(scope="session")
def weights(tokenizer) -> dict[str, np.ndarray]:
    return hf_weights(tokenizer.get_vocab_size())


@pytest.fixture(scope="session")
def gguf(tokenizer, weights, tmp_path_factory):
    """The model in float32."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", weights, tokenizer)


def test_float32_weights_come_back_bit_for_bit(gguf, weights):
    read = open_weights(resolve(str(gguf)))
    assert set(read) == set(weights)
    for name, weight in weights.items():
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], weight, err_msg=name)


def test_q_and_k_rows_were_really_reordered(gguf, weights):
    """Else the test above would pass without undoing anything."""
    from gguf import GGUFReader

    stored = {tensor.name: tensor.data for tensor in GGUFReader(gguf).tensors}
    assert not np.array_equal(stored["blk.0.attn_q.weight"], weights["model.layers.0.self_attn.q_proj.weight"])
    assert not np.array_equal(stored["blk.0.attn_k.weight"], weights["model.layers.0.self_attn.k_proj.weight"])


def test_q8_0_weights_are_within_half_a_step(tmp_path, tokenizer, weights):
    read = open_weights(resolve(str(write_gguf(tmp_path / "q8.gguf", weights, tokenizer, quantized=True))))
    for name, weight in weights.items():
        if weight.ndim == 1 or "layers" not in name:
            np.testing.assert_array_equal(read[name], weight, err_msg=name)
            continue
        blocks = weight.reshape(weight.shape[0], -1, 32)  # a Q8_0 block: 32 weights, one scale of amax / 127
        half_step = np.repeat(np.abs(blocks).max(axis=-1) / 127 / 2, 32, axis=-1)
        # 10 % more: the scale itself is stored as float16
        assert (np.abs(read[name] - weight) <= 1.1 * half_step).all(), name


def test_it_reads_what_ggufs_own_reader_reads(tmp_path, tokenizer, weights):
    from gguf import GGUFReader
    from gguf.quants import dequantize

    path = write_gguf(tmp_path / "q8.gguf", weights, tokenizer, quantized=True)
    theirs = GGUFReader(path)
    fields, tensors = read_gguf(path)
    assert fields == {name: f.contents() for name, f in theirs.fields.items() if not name.startswith("GGUF.")}
    assert len(tensors) == len(theirs.tensors)
    for tensor in theirs.tensors:
        expected = dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(tensors[tensor.name].read(), expected, err_msg=tensor.name, strict=True)


def test_config_says_what_a_hugging_face_config_says(gguf, tokenizer):
    config = read_config(resolve(str(gguf)))
    assert config == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 64,
        "intermediate_size": INNER,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": 16,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def test_an_output_matrix_means_an_untied_head(tmp_path, tokenizer):
    weights = hf_weights(tokenizer.get_vocab_size(), tied=False)
    files = resolve(str(write_gguf(tmp_path / "untied.gguf", weights, tokenizer)))
    assert read_config(files)["tie_word_embeddings"] is False
    np.testing.assert_array_equal(open_weights(files)["lm_head.weight"], weights["lm_head.weight"])


def test_transformers_reads_the_same_weights(gguf, weights):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight":  # tied
            np.testing.assert_array_equal(tensor.numpy(), weights[name], err_msg=name)


def _as_in(pre: str) -> pre_tokenizers.PreTokenizer:
    """The pre-tokenizer in the tokenizer.json of the family that llama.cpp calls `pre`."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return {
        "gpt-2": byte_level,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]),
        "llama-bpe": pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
    }[pre]


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe"])
def test_token_ids_equal_the_original_tokenizers(pre, tmp_path, weights):
    original = byte_level_tokenizer(_as_in(pre))
    weights = hf_weights(original.get_vocab_size())
    read = load_tokenizer(resolve(str(write_gguf(tmp_path / "model.gguf", weights, original, pre=pre))))
    for text in TEXTS:
        ids = original.encode(text, add_special_tokens=False).ids
        assert read.encode(text) == ids
        assert read.decode(ids, skip_special_tokens=False) == text
    assert read.eos_ids == (2,)
    assert read.vocab_size == original.get_vocab_size()


def test_llama3_takes_a_whole_word_before_its_merges(tmp_path):
    """Llama 3's tokenizer.json has ignore_merges: a word of the vocabulary is one token even where no merge leads to it."""
    vocab = {token: i for i, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "wo", "word"])}
    for pre, whole in (("llama-bpe", True), ("gpt-2", False)):
        original = Tokenizer(models.BPE(vocab, [("w", "o")], ignore_merges=whole))
        original.pre_tokenizer = _as_in(pre)
        path = write_gguf(tmp_path / f"{pre}.gguf", hf_weights(len(vocab)), original, pre=pre)
        ids = load_tokenizer(resolve(str(path))).encode("word")
        assert ids == original.encode("word").ids
        assert len(ids) == (1 if whole else 3)


def test_added_tokens_that_are_not_special_stay_whole(tmp_path, weights):
    """llama.cpp marks them USER_DEFINED: they are cut out of the text before the merges, and kept in decoded text."""
    original = byte_level_tokenizer()
    original.add_tokens([AddedToken("<tool_call>", normalized=False)])
    path = write_gguf(tmp_path / "model.gguf", hf_weights(original.get_vocab_size()), original)
    read = load_tokenizer(resolve(str(path)))
    text = "a <tool_call> b<|im_end|>"
    assert read.encode(text) == original.encode(text).ids
    assert read.decode(read.encode(text)) == "a <tool_call> b"


def test_chat_template_and_special_tokens_come_along(gguf):
    tokenizer = load_tokenizer(resolve(str(gguf)))
    assert tokenizer.settings["chat_template"] == TEMPLATE
    assert tokenizer.render([{"role": "user", "content": "hi"}]) == "<|im_start|>user\nhi<|im_end|>\n"
    assert tokenizer.encode("<|im_start|>") == [1]


def test_a_gguf_tokenizer_is_written_as_a_folder_that_reads_back(gguf, tmp_path):
    from kdjax.sources.tokenizer import read_tokenizer

    tokenizer = load_tokenizer(resolve(str(gguf)))
    tokenizer.save(tmp_path / "saved")
    again = read_tokenizer(tmp_path / "saved")
    for text in TEXTS:
        assert again.encode(text) == tokenizer.encode(text)
    assert again.eos_ids == tokenizer.eos_ids
    assert again.settings["chat_template"] == TEMPLATE
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs(TEXTS[3], add_special_tokens=False)["input_ids"] == tokenizer.encode(TEXTS[3])


@pytest.mark.parametrize("keep", [0, 10, 100, 5000, -1000])
def test_a_truncated_file_is_an_error_that_names_it(gguf, tmp_path, keep):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(gguf.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"broken\.gguf: not a readable GGUF file"):
        read_config(resolve(str(broken)))


def test_another_file_called_gguf_is_an_error(tmp_path):
    (tmp_path / "text.gguf").write_text("this is no model " * 100)
    with pytest.raises(InputError, match="not a readable GGUF file"):
        read_config(resolve(str(tmp_path / "text.gguf")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "qwen2"}, "architecture 'qwen2' is not supported"),
        ({"metadata": {"llama.rope.scaling.type": "yarn"}}, r"llama\.rope\.scaling\.type is 'yarn'"),
    ],
)
def test_what_is_not_computed_is_refused(tmp_path, tokenizer, weights, change, message):
    path = write_gguf(tmp_path / "other.gguf", weights, tokenizer, **change)
    with pytest.raises(InputError, match=message):
        read_config(resolve(str(path)))


def test_an_unknown_pre_tokenizer_is_refused(tmp_path, tokenizer, weights):
    path = write_gguf(tmp_path / "other.gguf", weights, tokenizer, pre="deepseek-coder")
    with pytest.raises(InputError, match="pre-tokenizer 'deepseek-coder'"):
        load_tokenizer(resolve(str(path)))


def test_an_unexpected_tensor_is_named(tmp_path, tokenizer, weights):
    more = weights | {"model.layers.0.attn_sinks.weight": np.ones(4, np.float32)}
    path = write_gguf(tmp_path / "other.gguf", more, tokenizer)
    with pytest.raises(InputError, match=r"blk\.0\.attn_sinks\.weight"):
        open_weights(resolve(str(path)))


def test_rope_factors_as_a_tensor_are_refused(tmp_path, tokenizer, weights):
    """Llama 3.1 files carry their scaling as a tensor, and say nothing of it in the metadata."""
    path = write_gguf(tmp_path / "scaled.gguf", weights | {"rope_freqs.weight": np.ones(8, np.float32)}, tokenizer)
    with pytest.raises(InputError, match="rope scaling"):
        read_config(resolve(str(path)))
