"""Adapter folders that fit no model, or not this one: the error names the file and the field or the tensor."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from listed import each
from safetensors.numpy import load_file, save_file

from kdjax.sources.tiny import write_tiny_model
from kdjax.student import PAIR_HEAD, LoraConfig, load_pair_head, load_student

NAN = float("nan")
A = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    write_tiny_model(folder)
    load_student(str(folder), lora=LoraConfig(r=4, target_modules=("q_proj", "v_proj"))).save_adapter(
        folder.parent / "adapter"
    )
    return folder


@pytest.fixture
def folder(base, tmp_path) -> Path:
    """A copy to break."""
    return shutil.copytree(base.parent / "adapter", tmp_path / "adapter")


# adapter_config.json: what is wrong: (fields, what the error says)
CONFIG = {
    "another kind": ({"peft_type": "LOHA"}, "peft_type 'LOHA' is not supported, only 'LORA'"),
    "no kind": ({"peft_type": None}, "peft_type None is not supported"),
    "a rank of 0": ({"r": 0}, "lora.r=0: the rank must be a whole number, at least 1"),
    "half a rank": ({"r": 2.5}, "lora.r=2.5"),
    "a rank in quotes": ({"r": "4"}, "lora.r='4'"),
    "true for a rank": ({"r": True}, "lora.r=True"),
    "358 GiB of rank": ({"r": 10**9}, "the rank 1000000000 is above the model's hidden size 48"),
    "another rank than its tensors": ({"r": 8}, "has shape (4, 48), expected (8, 48)"),
    "a pattern of another rank": ({"rank_pattern": {"q_proj": 2}}, "has shape (4, 48), expected (2, 48)"),
    "a pattern that is none": ({"rank_pattern": {"(": 2}}, "'(' is not a regular expression"),
    "a pattern in a list": ({"rank_pattern": ["q_proj"]}, "not a readable PEFT adapter config"),
    "an alpha of NaN": ({"lora_alpha": NAN}, "'lora_alpha' must be a finite number"),
    "an alpha of 0": ({"lora_alpha": 0}, "'lora_alpha' must be a finite number other than 0"),
    "an alpha of NaN in a pattern": ({"alpha_pattern": {"q_proj": NAN}}, "'q_proj' must be a finite number"),
    "dropout of null": ({"lora_dropout": None}, "lora.lora_dropout=None: must be in [0, 1)"),
    "no, in quotes": ({"use_rslora": "no"}, "lora.use_rslora='no': must be true or false"),
    "targets that are not there": (
        {"target_modules": ["evil"]},
        "lora.target_modules=('evil',)",
        "leave no linear layer",
    ),
    "targets in half an expression": ({"target_modules": "("}, "'(' is not a regular expression"),
    "targets by number": ({"target_modules": [1]}, "not a readable PEFT adapter config"),
    "fewer targets than tensors": ({"target_modules": ["q_proj"]}, "unexpected ['base_model", "v_proj"),
    "more targets than tensors": ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, "missing ['base_model", "o_proj"),
    "a layer in words": ({"layers_to_transform": ["first"]}, "lora.layers_to_transform=['first']"),
    "a layer that is not there": ({"layers_to_transform": [99]}, "leave no linear layer"),
    "a magnitude that is not there": ({"use_dora": True}, "missing ['base_model", "lora_magnitude_vector"),
    "a trained head": ({"modules_to_save": ["lm_head"]}, "modules_to_save=['lm_head'] is not supported"),
    "a changed base": ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' is not supported"),
}


@each("fields", CONFIG)
def test_a_field_of_the_config(fields, words, base, folder, refused):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    refused(lambda: load_student(str(base), adapter=folder), str(folder), *words)


def tensors(change):
    def changed(folder: Path) -> None:
        read = load_file(folder / "adapter_model.safetensors")
        change(read)
        save_file(read, folder / "adapter_model.safetensors")

    return changed


def content(name: str, data: bytes):
    return lambda folder: (folder / name).write_bytes(data)


def without(name: str):
    return lambda folder: (folder / name).unlink()


# what is wrong: (what is done to the folder, what the error says)
FOLDERS = {
    "no config": (without("adapter_config.json"), "adapter_config.json: not readable as JSON"),
    "a list for its config": (content("adapter_config.json", b"[]"), "adapter_config.json: expected a JSON object"),
    "nothing in its config": (
        content("adapter_config.json", b"{}"),
        "adapter_config.json: not a readable PEFT adapter",
    ),
    "a bomb of lists for its config": (
        content("adapter_config.json", b"[" * 10**5),
        "adapter_config.json: not readable",
    ),
    "Latin-1 in its config": (content("adapter_config.json", b'{"r": "\xe9"}'), "adapter_config.json: not readable"),
    "no tensors": (without("adapter_model.safetensors"), "adapter_model.safetensors: missing; pickled adapters"),
    "torn tensors": (content("adapter_model.safetensors", b"torn"), "not a readable safetensors file"),
    "no tensor at all": (lambda folder: save_file({}, folder / "adapter_model.safetensors"), "missing ['base_model"),
    "a tensor missing": (tensors(lambda t: t.pop(A)), f"missing ['{A}']"),
    "a tensor of no layer": (
        tensors(lambda t: t.update({A.replace(".1.", ".9."): t[A]})),
        "unexpected ['base_model",
        ".9.",
    ),
    "a tensor of the embedding": (tensors(lambda t: t.update(embed_tokens=t[A])), "unexpected ['embed_tokens']"),
    "a tensor lying flat": (tensors(lambda t: t.update({A: t[A].ravel()})), f"{A} has shape (192,), expected (4, 48)"),
    "NaN": (tensors(lambda t: t.update({A: t[A] * np.nan})), f"{A} holds numbers that are not finite"),
    "infinity": (tensors(lambda t: t.update({A: t[A] + np.inf})), f"{A} holds numbers that are not finite"),
    "whole numbers": (tensors(lambda t: t.update({A: t[A].astype(np.int32)})), f"tensor {A} is stored as I32"),
    "yes and no": (tensors(lambda t: t.update({A: t[A] > 0})), f"tensor {A} is stored as BOOL"),
}


@each("change", FOLDERS)
def test_an_adapter_folder(change, words, base, folder, refused):
    change(folder)
    student = load_student(str(base), lora=LoraConfig(r=2))
    before = student.adapter
    refused(lambda: student.load_adapter(folder), str(folder), *words)
    assert student.lora.r == 2 and jax.tree.all(jax.tree.map(np.array_equal, student.adapter, before))


HEAD = {
    "center": (2, 48),
    "projection": (2, 48, 32),
    "difference": (2, 32),
    "product": (2, 32),
    "cosine": (2,),
    "bias": (),
}
# what is wrong with a pair head: (what is done to its arrays, what the error says)
HEADS = {
    "an array missing": (lambda head: head.pop("bias"), "a pair head of this student has"),
    "an array too many": (lambda head: head.update(evil=np.zeros(3)), "'evil': (3,)"),
    "an array of another shape": (lambda head: head.update(cosine=np.zeros(3)), "'cosine': (3,)"),
    "whole numbers": (lambda head: head.update(cosine=np.zeros(2, np.int64)), "tensor cosine is stored as I64"),
    "NaN": (lambda head: head.update(cosine=np.full(2, np.nan)), "it holds numbers that are not finite"),
}


@each("change", HEADS)
def test_a_pair_head(change, words, tmp_path, refused):
    head = {name: np.zeros(shape, np.float32) for name, shape in HEAD.items()}
    change(head)
    save_file(head, tmp_path / PAIR_HEAD)
    refused(lambda: load_pair_head(tmp_path, fields=2, hidden=48), f"{tmp_path / PAIR_HEAD}: ", *words)


@pytest.mark.parametrize("data", [None, b"", b"torn"])
def test_a_pair_head_that_is_no_file_of_tensors(data, tmp_path, refused):
    if data is not None:
        (tmp_path / PAIR_HEAD).write_bytes(data)
    refused(lambda: load_pair_head(tmp_path, fields=2, hidden=48), f"{PAIR_HEAD}: not a readable safetensors file")
