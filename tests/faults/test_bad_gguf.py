"""GGUF files that are torn or lie about what they hold: the error names the file and the field or the tensor."""

import struct

import pytest
from listed import each

from kdjax.student import load_student
from tests.sources.gguf_helpers import byte_level_tokenizer, hf_weights, write_gguf

FIELDS_AT = 16  # where the number of metadata fields stands; the first name is behind it
NORM, Q = "output_norm.weight", "blk.0.attn_q.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    tokenizer = byte_level_tokenizer()
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_gguf(path, hf_weights(tokenizer.get_vocab_size()), tokenizer)
    load_student(str(path))  # it is whole
    return path.read_bytes()


def put(form: str, value, at: int):
    """Other bytes at a place of the file."""
    data = struct.pack("<" + form, value)
    return lambda whole: whole[:at] + data + whole[at + len(data) :]


def behind(name: str, form: str, value, skip: int = 4):
    """Other bytes behind a name (of a metadata field: kind, value; of a tensor: dimensions, sizes, kind, offset)."""

    def change(whole: bytes) -> bytes:
        told = struct.pack("<Q", len(name)) + name.encode()
        return put(form, value, whole.index(told) + len(told) + skip)(whole)

    return change


def one_more(name: str, kind: int, value: bytes):
    """Another metadata field, before the others."""

    def change(whole: bytes) -> bytes:
        (count,) = struct.unpack_from("<Q", whole, FIELDS_AT)
        told = struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value
        return put("Q", count + 1, FIELDS_AT)(whole[: FIELDS_AT + 8] + told + whole[FIELDS_AT + 8 :])

    return change


TORN = "model.gguf: not a readable GGUF file"
HEADS, KV = "llama.attention.head_count", "llama.attention.head_count_kv"
ONE_DIMENSION, TWO_DIMENSIONS = 4 + 8, 4 + 16  # what stands before a tensor's kind
# what is wrong: (the bytes of the file → other bytes, what the error says)
GGUF = {
    "nothing": (lambda whole: b"", TORN),
    "another magic": (lambda whole: b"GGML" + whole[4:], TORN, "it does not begin with GGUF"),
    "version 1": (put("I", 1, 4), TORN, "its version is 1, and only (2, 3) are read"),
    "version 99": (put("I", 99, 4), TORN, "its version is 99"),
    "the other byte order": (put("I", 3 << 24, 4), TORN, "big-endian order"),
    "cut off in its metadata": (lambda whole: whole[:100], TORN),
    "cut off in its vocabulary": (lambda whole: whole[:3000], TORN),
    "cut off in its weights": (lambda whole: whole[:-1000], TORN),
    "2⁶⁰ tensors": (put("Q", 2**60, 8), TORN),
    "2⁶³ fields": (put("Q", 2**63, FIELDS_AT), TORN),
    "a name of 2⁶³ bytes": (put("Q", 2**63, FIELDS_AT + 8), TORN, "longer than the rest of the file"),
    "a name that is no text": (lambda whole: whole.replace(b"general.architecture", b"\xff" * 20), TORN),
    "2⁶² words": (behind("tokenizer.ggml.tokens", "Q", 2**62, skip=8), TORN),
    "100 000 lists in lists": (one_more("x", 9, struct.pack("<IQ", 9, 1) * 10**5), TORN, "recursion depth"),
    "an unknown kind of field": (behind("llama.block_count", "I", 77, skip=0), TORN, "unknown kind 77"),
    "no alignment": (one_more("general.alignment", 4, struct.pack("<I", 0)), TORN, "its alignment is 0"),
    "half an alignment": (one_more("general.alignment", 6, struct.pack("<f", 1.5)), TORN, "its alignment is 1.5"),
    "another architecture": (
        lambda whole: whole.replace(b"\5" + bytes(7) + b"llama", b"\5" + bytes(7) + b"mamba"),
        "'mamba'",
    ),
    "4 billion layers": (behind("llama.block_count", "I", 2**32 - 1), "num_hidden_layers=4294967295, of only"),
    "no head": (behind(HEADS, "I", 0), f"the metadata field {HEADS} is 0"),
    "heads as a float": (behind(HEADS, "I", 6, skip=0), f"the metadata field {HEADS} is"),
    "heads that do not divide": (behind(KV, "I", 3), "4 attention heads do not share 3"),
    "no size": (behind("llama.embedding_length", "I", 0), "the metadata field llama.embedding_length is 0"),
    "8 TiB of states": (behind("llama.embedding_length", "I", 2**31), "config.json asks for (319, 2147483648)"),
    "an epsilon of NaN": (behind("llama.attention.layer_norm_rms_epsilon", "f", float("nan")), "rms_norm_eps", "nan"),
    "a rope that turns back": (behind("llama.rope.freq_base", "f", -1.0), "rope_theta in config.json is -1.0"),
    "an end that is no token": (behind("tokenizer.ggml.eos_token_id", "I", 10**6), "eos_token_id is 1000000"),
    "a start that is no token": (behind("tokenizer.ggml.bos_token_id", "I", 10**6), "bos_token_id is 1000000"),
    "an unknown quantisation": (behind(NORM, "I", 999, ONE_DIMENSION), TORN, "999 is not a valid GGMLQuantizationType"),
    "a quantisation not computed": (
        behind(NORM, "I", 26, ONE_DIMENSION),
        f"tensor {NORM}",
        "I32 is not yet implemented",
    ),
    "half a block": (behind(NORM, "I", 10, ONE_DIMENSION), TORN, "not a whole number of blocks of 256"),
    "a tensor behind the end": (behind(NORM, "Q", 2**40, ONE_DIMENSION + 4), TORN),
    "a tensor beyond all memory": (behind(NORM, "Q", 2**63, ONE_DIMENSION + 4), TORN),
    "2⁶² numbers": (behind(NORM, "Q", 2**62, 4), TORN),
    "2³² dimensions": (behind(NORM, "I", 2**32 - 1, 0), TORN),
    "a tensor of another shape": (behind(NORM, "Q", 32, 4), "model.norm.weight has shape (32,)"),
    "queries of no head": (behind(Q, "Q", 60, 4 + 8), f"tensor {Q} of shape (60, 64) does not divide into 4 heads"),
}


@each("change", GGUF)
def test_a_gguf_file(change, words, whole, tmp_path, refused):
    path = tmp_path / "model.gguf"
    assert change(whole) != whole
    path.write_bytes(change(whole))
    refused(lambda: load_student(str(path)), str(path), *words)
