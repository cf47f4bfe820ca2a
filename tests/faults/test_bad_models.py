"""Model folders that are torn, lie about themselves or want to run something: the error names the file and what is wrong in it."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from listed import each
from safetensors.numpy import load_file, save_file

from kdjax.sources import load_tokenizer, resolve
from kdjax.sources.tiny import write_tiny_model
from kdjax.student import load_student

NAN = float("nan")
NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    write_tiny_model(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "model")


def edit(path: Path, **changes) -> None:
    """Change fields of a JSON object; ... takes one away."""
    fields = (json.loads(path.read_text()) if path.exists() else {}) | changes
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not ...}))


# config.json: what is wrong: (fields, what the error says)
CONFIG = {
    "no sizes": ({"hidden_size": ...}, "does not say 'hidden_size'"),
    "a size of null": ({"vocab_size": None}, "does not say 'vocab_size'"),
    "a size in quotes": ({"vocab_size": "259"}, "vocab_size in config.json is '259'", "a whole number, at least 1"),
    "a size of 0": ({"hidden_size": 0}, "hidden_size in config.json is 0"),
    "a negative size": ({"vocab_size": -1}, "vocab_size in config.json is -1"),
    "half a layer": ({"num_hidden_layers": 2.5}, "num_hidden_layers in config.json is 2.5"),
    "true for a size": ({"vocab_size": True}, "vocab_size in config.json is True"),
    "a list for a size": ({"num_attention_heads": [4]}, "num_attention_heads in config.json is [4]"),
    "175 TiB of vocabulary": ({"vocab_size": 10**12}, "config.json asks for (1000000000000, 48)"),
    "965 GiB of states": ({"hidden_size": 10**9}, "config.json asks for (259, 1000000000)"),
    "a billion layers": ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000, of only 20 tensors"),
    "no head": ({"num_attention_heads": 0}, "num_attention_heads in config.json is 0"),
    "heads that do not divide": ({"num_key_value_heads": 3}, "4 attention heads do not share 3"),
    "a head that cannot be rotated": ({"head_dim": 7}, "a head_dim of 7 cannot be rotated"),
    "an epsilon of NaN": ({"rms_norm_eps": NAN}, "rms_norm_eps in config.json is nan", "a finite number above 0"),
    "an epsilon in words": ({"rms_norm_eps": "small"}, "rms_norm_eps in config.json is 'small'"),
    "positions below 0": ({"max_position_embeddings": -1}, "max_position_embeddings in config.json is -1"),
    "no, in quotes": ({"tie_word_embeddings": "no"}, "tie_word_embeddings in config.json is 'no'", "true or false"),
    "no architecture": ({"architectures": []}, "architecture None is not supported; supported: Llama"),
    "an unknown architecture": ({"architectures": ["EvilForCausalLM"]}, "architecture 'EvilForCausalLM' is not"),
    "an architecture in lists": ({"architectures": [["x"]]}, "architecture ['x'] is not supported"),
    "an architecture of 7": ({"architectures": 7}, "architecture 7 is not supported"),
    "another activation": ({"hidden_act": ["silu"]}, "hidden_act=['silu'] is not supported"),
    "quantised weights": ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    "a rope in words": ({"rope_parameters": "long"}, "rope_parameters in config.json is 'long'", "an object"),
    "an unknown rope": ({"rope_parameters": {"rope_type": ["x"]}}, "rope type ['x'] is not supported"),
    "a rope without its factor": ({"rope_parameters": {"rope_type": "linear"}}, "does not say 'factor'"),
    "a rope stretched by a word": ({"rope_scaling": {"type": "yarn", "factor": "2"}}, "factor in config.json is '2'"),
    "a rope of NaN": ({"rope_theta": NAN}, "rope_theta in config.json is nan"),
    "an end that is no token": ({"eos_token_id": 10**9}, "eos_token_id 1000000000 is not the id of a token"),
    "an activation of null": ({"hidden_act": None}, "hidden_act=None is not supported, only 'silu'"),
    "tied or not, null": ({"tie_word_embeddings": None}, "does not say 'tie_word_embeddings': it is null"),
    "another family's name": ({"model_type": "gemma"}, "model_type='gemma' is not that of LlamaForCausalLM, 'llama'"),
    "attention to what comes after": ({"is_causal": False}, "is_causal=False is not supported, only True"),
    "settings for each layer": ({"per_layer_config": {"0": {}}}, "per_layer_config={'0': {}} is not supported"),
    "a model in a model": ({"text_config": {"hidden_size": 8}}, "text_config={'hidden_size': 8} is not supported"),
    "nothing of a quantisation": ({"quantization_config": {}}, "quantization_config={} is not supported"),
    "a window that Llama has not": ({"sliding_window": 16}, "sliding_window=16 is not supported for llama"),
    "a kind of layer for one of two": (
        {"layer_types": ["full_attention"]},
        "layer_types must name",
        "each of 2 layers",
    ),
    "an unknown kind of layer": (
        {"layer_types": ["hybrid"] * 2},
        "layer_types must name sliding_attention or full_att",
    ),
    "windows without a size": ({"layer_types": ["sliding_attention"] * 2}, "and no sliding_window is in use"),
    "weights of another name": ({"transformers_weights": "x.safetensors"}, "transformers_weights='x.safetensors'"),
    "two ropes": (
        {
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "rope_scaling": {"type": "linear", "factor": 2},
        },
        "rope_parameters and rope_scaling are both in config.json and differ",
    ),
    "a rope for each kind of layer": ({"rope_parameters": {"full_attention": {"rope_theta": 9}}}, "full_attention"),
    "a rope without its kind": ({"rope_parameters": {"rope_type": None}}, "rope type None is not supported"),
    "a rope of null turns": ({"rope_parameters": {"rope_theta": None}}, "does not say 'rope_theta': it is null"),
    "an original length of null": (
        {"rope_scaling": {"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": None}},
        "does not say 'original_max_position_embeddings': it is null",
    ),
    "frequencies the wrong way round": (
        {"rope_scaling": {"rope_type": "llama3", "factor": 2, "low_freq_factor": 4, "high_freq_factor": 1}},
        "high_freq_factor=1 has to be above low_freq_factor=4",
    ),
    "an end in a list in a list": ({"eos_token_id": [["x"]]}, "eos_token_id ['x'] is not the id of a token"),
}


@each("fields", CONFIG)
def test_a_field_of_the_config(fields, words, folder, refused):
    edit(folder / "config.json", **fields)
    refused(lambda: load_student(str(folder)), str(folder), *words)


# what is wrong: (file, its bytes or None for a missing one, what the error says)
FILES = {
    "no config.json": ("config.json", None, "no model (neither config.json nor a .gguf file)"),
    "a list for config.json": ("config.json", b"[]", "config.json: expected a JSON object, found list"),
    "text for config.json": ("config.json", b"hello", "config.json: not readable as JSON"),
    "nothing in config.json": ("config.json", b"", "config.json: not readable as JSON"),
    "Latin-1 in config.json": ("config.json", b'{"model_type": "\xe9"}', "config.json: not readable as JSON"),
    "a bomb of lists for config.json": ("config.json", b"[" * 10**5, "config.json: not readable as JSON"),
    "no weights": ("model.safetensors", None, "no *.safetensors; weights in other formats are not read"),
    "no tokenizer": ("tokenizer.json", None, "tokenizer.json is missing"),
    "nothing in tokenizer.json": ("tokenizer.json", b"", "tokenizer.json: not a readable tokenizer"),
    "a bomb of lists for a tokenizer": ("tokenizer.json", b"[" * 10**5, "tokenizer.json: not a readable tokenizer"),
    "a list for its settings": ("tokenizer_config.json", b"[]", "tokenizer_config.json: expected a JSON object"),
    "half of its settings": ("tokenizer_config.json", b'{"eos', "tokenizer_config.json: not readable as JSON"),
    "an end that is a number": ("tokenizer_config.json", b'{"eos_token": 7}', "eos_token is 7, and must be a text"),
    "an end without a text": ("tokenizer_config.json", b'{"eos_token": {"id": 1}}', "eos_token is {'id': 1}"),
    "null for special tokens": ("special_tokens_map.json", b"null", "special_tokens_map.json: expected a JSON object"),
    "a list for generation": ("generation_config.json", b"[]", "generation_config.json: expected a JSON object"),
    "an end in words": ("generation_config.json", b'{"eos_token_id": "</s>"}', "eos_token_id '</s>' is not the id"),
    "a template that is no text": ("chat_template.jinja", b"\xff\xfe\x00", "chat_template.jinja: not UTF-8 text"),
}


@each("name, data", FILES)
def test_a_file_of_the_folder(name, data, words, folder, refused):
    (folder / name).unlink(missing_ok=True)
    if data is not None:
        (folder / name).write_bytes(data)
    refused(lambda: load_student(str(folder)), str(folder), *words)


def test_a_tokenizer_that_knows_more_than_the_model(folder, refused):
    told = json.loads((folder / "tokenizer.json").read_text())
    told["model"]["vocab"]["more"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(told))
    refused(lambda: load_student(str(folder)), "the tokenizer has ids up to 5000", "vocab_size=259")


# model.safetensors: an eight-byte length, a JSON header, the numbers


def parts(folder: Path) -> tuple[dict, bytes]:
    data = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(folder: Path, header: bytes | dict, body: bytes, length: int | None = None) -> None:
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(header) if length is None else length
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + header + body)


def of_norm(**changes):
    """Change what the header says of one tensor."""

    def change(folder: Path) -> None:
        header, body = parts(folder)
        start, end = header[NORM]["data_offsets"]
        told = {name: value(start, end) if callable(value) else value for name, value in changes.items()}
        write(folder, header | {NORM: header[NORM] | told}, body)

    return change


def tensors(change):
    def changed(folder: Path) -> None:
        path = folder / "model.safetensors"
        read = load_file(path)
        change(read)
        save_file(read, path)

    return changed


def stored_as_float8(folder: Path) -> None:
    """All tensors again, one of them in one byte for each number."""
    header, body = parts(folder)
    told, numbers = {}, b""
    for name, of in header.items():
        if name != "__metadata__":
            start, end = of["data_offsets"]
            data, kind = (body[start:end], of["dtype"]) if name != NORM else (bytes((end - start) // 4), "F8_E4M3")
            told[name] = {"dtype": kind, "shape": of["shape"], "data_offsets": [len(numbers), len(numbers) + len(data)]}
            numbers += data
    write(folder, told, numbers)


def index(weight_map):
    """An index in place of the one file, which would count before it."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        edit(folder / "model.safetensors.index.json", weight_map=weight_map)

    return change


def two_shards_with_the_norm(folder: Path) -> None:
    read = load_file(folder / "model.safetensors")
    save_file(read, folder / "a.safetensors")
    save_file({NORM: read[NORM] + 1}, folder / "b.safetensors")
    index(dict.fromkeys(read, "a.safetensors") | {NORM: "b.safetensors"})(folder)


def link(target: str):
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").symlink_to(target)

    return change


TORN = "model.safetensors: not a readable safetensors file"
WEIGHTS = {
    "nothing": (lambda folder: (folder / "model.safetensors").write_bytes(b""), TORN),
    "cut off": (lambda folder: write(folder, parts(folder)[0], parts(folder)[1][:-7]), TORN),
    "more than its header tells": (lambda folder: write(folder, parts(folder)[0], parts(folder)[1] + b"more"), TORN),
    "a header of 2⁶² bytes": (lambda folder: write(folder, *parts(folder), length=2**62), TORN),
    "a header longer than the file": (lambda folder: write(folder, b"{}", b"", length=2**20), TORN),
    "a header that is no JSON": (lambda folder: write(folder, b"not JSON", b""), TORN),
    "a header that is a list": (lambda folder: write(folder, b"[1]", b""), TORN),
    "tensors that overlap": (of_norm(data_offsets=lambda start, end: [start - 4, end - 4]), TORN),
    "a tensor behind the end": (of_norm(data_offsets=lambda start, end: [start, end + 10**9]), TORN),
    "a tensor before the start": (of_norm(data_offsets=lambda start, end: [-4, end]), TORN),
    "a tensor of 2⁸⁰ numbers": (of_norm(shape=[2**40, 2**40]), TORN),
    "another shape than its bytes": (of_norm(shape=[7]), TORN),
    "an unknown dtype": (of_norm(dtype="F7"), TORN),
    "whole numbers": (tensors(lambda t: t.update({NORM: t[NORM].astype(np.int64)})), f"tensor {NORM} is stored as I64"),
    "yes and no": (tensors(lambda t: t.update({NORM: t[NORM] > 0})), f"tensor {NORM} is stored as BOOL"),
    "float8": (stored_as_float8, f"tensor {NORM} is stored as F8_E4M3; only F64"),
    "a tensor missing": (tensors(lambda t: t.pop(NORM)), f"tensors missing: {NORM}; unexpected: none"),
    "a tensor too many": (tensors(lambda t: t.update(evil=np.ones(3))), "unexpected: evil"),
    "a tensor of another shape": (
        tensors(lambda t: t.update({NORM: t[NORM][:-1].copy()})),
        f"tensor {NORM} has shape (47,), config.json asks for (48,)",
    ),
    "a link to nowhere": (link("/nowhere"), "the file model.safetensors is not in the folder"),
    "an index that climbs out": (index({NORM: "../x.safetensors"}), "../x.safetensors is not in the folder"),
    "an index to an absolute path": (index({NORM: "/etc/passwd"}), "/etc/passwd is not in the folder"),
    "an index with a zero byte": (index({NORM: "a\0b"}), "is not in the folder"),
    "an index with 5000 letters": (index({NORM: "x" * 5000}), "is not in the folder"),
    "an index to a pickle": (index({NORM: "pytorch_model.bin"}), "pytorch_model.bin is not in the folder"),
    "an index to another file": (index({NORM: "config.json"}), "config.json: not a readable safetensors file"),
    "an index of nothing": (index({}), "num_hidden_layers=2, of only 0 tensors"),
    "shards without an index": (
        lambda folder: (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors"),
        "neither model.safetensors nor model.safetensors.index.json is there",
        "model-00001-of-00001.safetensors may be of any model",
    ),
    "a variant alone": (
        lambda folder: (folder / "model.safetensors").rename(folder / "model.fp16.safetensors"),
        "rename a single file to model.safetensors",
    ),
    "a tensor in two shards": (two_shards_with_the_norm, "tensor model.norm.weight is in another shard, too"),
    "an adapter beside the model": (
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        "adapter_config.json lies beside the model",
    ),
    "an index in a list": (index([NORM]), "model.safetensors.index.json: weight_map must name a file"),
}


@each("change", WEIGHTS)
def test_the_weights(change, words, folder, refused):
    change(folder)
    refused(lambda: load_student(str(folder)), str(folder), *words)


# Chat templates are programs by strangers: what is wrong: (the template, what the error says)
TEMPLATES = {
    "out of the sandbox by classes": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
    "out of the sandbox by globals": ("{{ cycler.__init__.__globals__.os.popen('touch evil') }}", "unsafe"),
    "out of the sandbox by itself": ("{{ self.__init__.__globals__ }}", "unsafe"),
    "reads a file": ("{% include '/etc/passwd' %}", "no loader"),
    "imports a module": ("{% import 'os' as os %}{{ os }}", "no loader"),
    "changes the conversation": ("{{ messages.append(1) }}", "unsafe"),
    "divides by zero": ("{{ 1 / messages|length // 0 }}", "ZeroDivisionError"),
    "adds what has no sum": ("{{ messages + 3 }}", "TypeError"),
    "a range without end": ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
    "calls itself for ever": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    "never ends its loop": ("{% for m in messages %}", "endfor"),
    "asks for what is not there": ("{{ nothing.at.all }}", "'nothing' is undefined"),
    "refuses": ("{{ raise_exception('not today') }}", "not today"),
    "is a number": (7, "no chat template; use an instruct model"),
    "is an object without a default": ({"tool_use": "x"}, "no chat template; use an instruct model"),
    "is a list of texts": (["x"], "no chat template; use an instruct model"),
    "has a name and no text": ([{"name": "default"}], "no chat template; use an instruct model"),
}


@each("template", TEMPLATES)
def test_a_chat_template(template, words, folder, refused):
    edit(folder / "tokenizer_config.json", chat_template=template)
    tokenizer = load_tokenizer(resolve(str(folder)))
    refused(lambda: tokenizer.render([{"role": "user", "content": "hi"}]), str(folder), *words)
