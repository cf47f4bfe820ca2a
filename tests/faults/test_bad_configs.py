"""Configs that cannot be run: the error names the field, and the workdir is not even made."""

import json

import pytest
from listed import each

from configs import sft_rules, sft_text
from configs.base import cell, study
from kdjax.study import default_workdir, run
from kdjax.study.grid import grid

NAN, INF = float("nan"), float("inf")
FILES = {"data.source": "jsonl", "data.root": "."}
ASKS = {"teacher.kind": "hf", "teacher.source": "tiny-random"}

# what is wrong: (fields of the config, what the error says)
FIELDS = {
    "no domain": ({"data.domains": ()}, "data.domains is empty"),
    "a domain twice": ({"data.domains": ("demo", "demo")}, "names something twice"),
    "a domain that climbs out": (FILES | {"data.domains": ("../x",)}, "data.domains: '../x' is not the name of"),
    "a domain that is the root's parent": (FILES | {"data.domains": ("..",)}, "'..' is not the name of a folder"),
    "a domain at an absolute path": (FILES | {"data.domains": ("/etc",)}, "'/etc' is not the name of a folder"),
    "a domain without a name": (FILES | {"data.domains": ("",)}, "'' is not the name of a folder"),
    "a domain with a zero byte": (FILES | {"data.domains": ("a\0b",)}, r"'a\x00b' is not the name of a folder"),
    "a domain that is a number": (FILES | {"data.domains": (7,)}, "data.domains: 7 is not the name of a folder"),
    "a domain of 5000 letters": (FILES | {"data.domains": ("x" * 5000,)}, "there is no folder 'xxx"),
    "a root with a zero byte": (FILES | {"data.root": "a\0b"}, "does not exist"),
    "a root of 5000 letters": (FILES | {"data.root": "x" * 5000}, "does not exist"),
    "a root of nobody's home": (FILES | {"data.root": "~no-such-user/x"}, "the root ~no-such-user/x does not exist"),
    "a cache that is a file": (ASKS | {"teacher.cache_dir": "/dev/null"}, "cache_dir=/dev/null cannot be a folder"),
    "a cache below a file": (ASKS | {"teacher.cache_dir": "/dev/null/x"}, "cannot be a folder: /dev/null is no folder"),
    "a cache with a zero byte": (ASKS | {"teacher.cache_dir": "a\0b"}, r"cache_dir=a\x00b' cannot be a folder"),
    "a cache of 5000 letters": (ASKS | {"teacher.cache_dir": "x" * 5000}, "cannot be a folder (File name too long)"),
    "a cache in nobody's home": (ASKS | {"teacher.cache_dir": "~no-such-user/x"}, "cache_dir=~no-such-user/x cannot"),
    "a cache whose name is a pattern": (ASKS | {"teacher.cache_dir": "run*"}, "cannot be a folder: '*' stands for"),
    "a cache behind a URL": (
        ASKS | {"teacher.cache_dir": "gs://b/cache"},
        "cache_dir=gs://b/cache is a URL",
        "mount it",
    ),
    "an unknown source": ({"data.source": "csv"}, "valid are bundlerec, jsonl, demo"),
    "a root for the demo": ({"data.root": "/data"}, "set data.source"),
    "no examples in a batch": ({"train.batch_size": 0}, "config.train.batch_size=0 must be at least 1"),
    "a negative length": ({"train.max_length": -5}, "config.train.max_length=-5 must be at least 1"),
    "a batch beyond all numbers": ({"train.batch_size": 10**20}, "config.train.batch_size=1", "at most 2147483647"),
    "epochs without end": ({"train.epochs": 10**7}, "config.train.epochs=10000000", "at most 1000"),
    "a seed beyond all numbers": ({"seed": 10**30}, "config.seed=1", "at most 2147483647"),
    "a negative seed": ({"seed": -1}, "config.seed=-1 must be at least 0"),
    "a learning rate of NaN": ({"train.learning_rate": NAN}, "config.train.learning_rate=nan"),
    "a negative learning rate": ({"train.learning_rate": -1.0}, "config.train.learning_rate=-1.0 must be at least 0"),
    "an infinite learning rate": ({"train.learning_rate": INF}, "config.train.learning_rate=inf"),
    "a weight decay of NaN": ({"train.weight_decay": NAN}, "config.train.weight_decay=nan"),
    "gradients clipped to NaN": ({"train.max_grad_norm": NAN}, "config.train.max_grad_norm=nan must be above 0"),
    "a warm-up of two trainings": ({"train.warmup_ratio": 2.0}, "config.train.warmup_ratio=2.0 must be at most 1"),
    "a share of NaN": ({"quantity.ratio": NAN}, "config.quantity.ratio=nan must be above 0"),
    "a share of nobody": ({"quantity.applies_to": ()}, "config.quantity.applies_to is empty"),
    "a share of nothing": ({"quantity.ratio": 0.0}, "config.quantity.ratio=0.0 must be above 0"),
    "a rank of 0": ({"lora.r": 0}, "lora.r=0: the rank must be a whole number, at least 1"),
    "a rank above the model's size": ({"lora.r": 10**6}, "the rank 1000000 is above the model's hidden size 48"),
    "a rank that is no whole number": ({"lora.rank_pattern": (("q_proj", 2.5),)}, "rank_pattern['q_proj']=2.5"),
    "ranks that are no pairs": ({"lora.rank_pattern": ("q_proj",)}, "config.lora.rank_pattern", "write pairs"),
    "an alpha of 0": ({"lora.lora_alpha": 0.0}, "'lora_alpha' must be a finite number other than 0"),
    "a negative alpha": ({"lora.lora_alpha": -4.0}, "config.lora.lora_alpha=-4.0 must be above 0"),
    "an alpha of NaN": ({"lora.alpha_pattern": (("q_proj", NAN),)}, "the alpha of 'q_proj' must be a finite number"),
    "dropout of everything": ({"lora.lora_dropout": 1.0}, "lora.lora_dropout=1.0"),
    "half a regular expression": ({"lora.target_modules": "("}, "lora.target_modules", "not a regular expression"),
    "no targets": ({"lora.target_modules": ""}, "lora.target_modules is empty"),
    "a layer that is a word": ({"lora.layers_to_transform": ("x",)}, "lora.layers_to_transform=('x',)"),
    "a layer below the first": ({"lora.layers_to_transform": (-1,)}, "there is no layer -1, the model has 2"),
    "an unknown format": ({"knowledge.formats": ("lies",)}, "config.knowledge.formats='lies'", "choose from patterns"),
    "a format in a tuple too many": ({"knowledge.formats": (("rules",),)}, "config.knowledge.formats=('rules',)"),
    "products without titles": ({"prompting.fields": ()}, "config.prompting.fields=()", "begins with its title"),
    "thoughts from no demonstration": (
        {"knowledge.formats": ("thoughts",), "knowledge.thoughts_in": "demonstrations"},
        "prompting.demonstrations=0",
    ),
    "several orders of one written answer": ({"eval.orders": 2}, "config.eval.orders=2", "only with"),
    "an answer longer than the model reads": ({"eval.max_new_tokens": 10**6}, "exceed the student's 4096 positions"),
    "an answer too short for any": ({"eval.max_new_tokens": 3}, "the shortest answer takes"),
    "a base that is cut, and whole on each device": ({"mesh.fsdp": 2}, "config.mesh cuts the base only with"),
    "devices of half a base": ({"parallel": "mesh", "mesh.tensor": 0}, "config.mesh.tensor=0 must be at least 1"),
    "an unknown constraint": ({"eval.constraint": "regex"}, "config.eval.constraint='regex'", "choose from none, json"),
    "no model": ({"student.source": ""}, "model source ''"),
    "a model with a zero byte": ({"student.source": "a\0b"}, r"model source 'a\x00b'"),
    "a model of 5000 letters": ({"student.source": "x" * 5000}, "model source 'xxx"),
    "a GGUF file of 5000 letters": ({"student.source": "x" * 5000 + ".gguf"}, "no such GGUF file"),
    "a model in nobody's home": ({"student.source": "~no-such-user/x/y"}, "model source '~no-such-user/x/y'"),
    "a model behind a URL": ({"student.source": "https://example.org/model"}, "give a folder, a .gguf file"),
    "a wheel without a checksum": ({"student.source": "pypi:x==1"}, "add #sha256="),
    "a wheel at a path": ({"student.source": "pypi:x==../../x"}, "write pypi:name==version"),
    "a dtype that is not computed": ({"student.dtype": "float16"}, "config.student.dtype='float16'", "bfloat16"),
    "an unknown quantization": ({"student.quantization": "int1"}, "config.student.quantization='int1'", "nf4"),
    "an adapter that is not there": ({"student.adapter": "/nowhere"}, "/nowhere/adapter_config.json"),
    "a teacher that is not there": (
        {"teacher.kind": "hf", "teacher.source": "/nowhere"},
        "model source '/nowhere': no such folder",
    ),
}


def changed(config, fields):
    config.update_from_flattened_dict(fields)
    return config


@each("fields", FIELDS)
def test_a_field(fields, words, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    refused(lambda: run(changed(sft_text.get_config("smoke"), fields), tmp_path / "run"), *words)


# of the student that judges pairs: fields that contradict it
JUDGES = {
    "thoughts before an answer": ({"knowledge.formats": ("thoughts",)}, "a thought is written before an answer"),
    "a layer that is not computed": ({"lora.layers_to_transform": (1,)}, "layer 1 is behind", "student.pair_layers"),
}


@each("fields", JUDGES)
def test_a_student_that_judges_is_not_asked_to_write(fields, words, tmp_path, refused):
    refused(lambda: run(changed(sft_rules.get_config("smoke"), fields), tmp_path / "run"), *words)


@pytest.mark.parametrize("name", ["../../etc/cron.d/x", "/tmp/x", "a\0b", ""])
def test_a_name_that_is_no_folders(name, tmp_path, refused):
    refused(lambda: default_workdir(changed(sft_text.get_config("smoke"), {"name": name})), "config.name=", repr(name))


# what is wrong: (the cells, what the error says)
CELLS = {
    "no cell": ((), "config.study.cells is empty"),
    "two of one name": ((cell("a"), cell("a")), "two cells are named 'a'"),
    "compared with none": ((cell("a", "b"),), "'a' is compared with 'b'"),
    "a field misspelt": ((cell("a", train__epoch=3),), "study cell 'a'", "did you mean 'train.epochs'"),
    "text for a number": ((cell("a", train__epochs="many"),), "study cell 'a': train.epochs='many' does not fit"),
    "a number out of range": ((cell("a", train__epochs=-1),), "study cell 'a': config.train.epochs=-1"),
    "other data than the others": ((cell("a", data__root="/x"),), "data.root is the same in all cells"),
}


@each("cells", CELLS)
def test_a_cell_of_a_study(cells, words, tmp_path, refused):
    refused(lambda: grid(study("x", "?", cells), tmp_path), *words)


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a\0b", "..", "x\n/y"])
def test_a_hostile_name_of_a_cell_stays_inside_the_study(name, tmp_path):
    (one,) = grid(study("x", "?", (cell(name, train__max_steps=0),)), tmp_path)
    assert one.runs[0].folder.parent == tmp_path / "cells"
    assert json.dumps(one.runs[0].folder.name).isascii() and "/" not in one.runs[0].folder.name
