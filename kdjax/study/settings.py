"""The config of a run: checked before anything expensive, named by a hash, and cut into what each room takes."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import replace

from ml_collections import ConfigDict, FieldReference

from kdjax.decoding import MODES
from kdjax.errors import InputError
from kdjax.knowledge import FORMATS
from kdjax.knowledge import STRATEGIES as SAMPLINGS
from kdjax.prompting import FIELDS
from kdjax.sources import cache_root
from kdjax.student import DTYPES, QUANTIZATIONS, REMAT, LoraConfig
from kdjax.teacher import check_endpoint, refuse_keys
from kdjax.training import KINDS, Parallel, TrainSettings

TEACHERS = ("hf", "http", "annotations", "replay")
ANSWERS = ("text", "pairs")
USES = ("knowledge", "training")  # what a sample of the training sessions is for
MOST = 2**31 - 1  # of any number: what JAX holds in 32 bits
MOST_EPOCHS = 1000  # every epoch is told before the first one begins
STRATEGIES = ("random", "length", "diversity")  # of sessions that a teacher is asked about


def config_hash(config: ConfigDict) -> str:
    """sha256 (hex) of the resolved config; the workdir is not part of it."""
    return hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()


def default_workdir(config: ConfigDict) -> str:
    """runs/<config name>-<first 8 of the hash>: another config is another folder.

    A study's cells and seeds do not count, since each of its runs has a folder of its own: more of them go on where the others are.

    Raises:
        InputError: the config's name would lead to another folder.
    """
    if not re.fullmatch(r"[^/\0]+", config.name):
        raise InputError(f"config.name={config.name!r} cannot be part of a folder's name; name the run otherwise")
    if "study" in config:
        config = config.copy_and_resolve_references()
        config.unlock()
        del config["study"]
    return f"runs/{config.name}-{config_hash(config)[:8]}"


def read_flags(config: ConfigDict, given: Mapping[str, object]) -> None:
    """Read the fields that the command line gives as a person writes them, where ml_collections takes the text as it is.

    "None", "none" or nothing is None for a field that may be left empty, and a tuple of names is cut at its commas:
    `--config.data.domains=electronic,clothing`.
    """
    for field, value in given.items():
        path, _, name = field.rpartition(".")
        section = _at(config, path) if path else config
        if value in ("", "None", "none") and isinstance(_reference(section, name), FieldReference):
            section[name] = None
        elif isinstance(value, tuple) and all(isinstance(part, str) for part in value):
            parts = (part.strip() for text in value for part in text.strip("[]()").split(","))
            section[name] = tuple(filter(None, parts))


def _reference(section: ConfigDict, name: str):
    """A field as it is stored: a FieldReference where it is a placeholder."""
    return dict(section.items(preserve_field_references=True)).get(name)


def check(config: ConfigDict) -> None:
    """Everything about the config that can be judged without reading a file.

    Raises:
        InputError: naming the field, what it is and what it may be.
    """
    _one_of("parallel", config.parallel, KINDS)
    _one_of("teacher.kind", config.teacher.kind, TEACHERS)
    refuse_keys(config.teacher.url, config.teacher.key_variable)
    if config.teacher.kind == "http":
        check_endpoint(config.teacher.url, config.teacher.source, config.teacher.key_variable)
    _one_of("knowledge.strategy", config.knowledge.strategy, STRATEGIES)
    _one_of("knowledge.thoughts_in", config.knowledge.thoughts_in, ("target", "demonstrations"))
    _one_of("quantity.strategy", config.quantity.strategy, SAMPLINGS)
    for use in config.quantity.applies_to:
        _one_of("quantity.applies_to", use, USES)
    if not config.quantity.applies_to:
        raise InputError(
            f"config.quantity.applies_to is empty; it takes {' and '.join(map(repr, USES))}, or one of them"
        )
    if not 0 < config.quantity.ratio <= 1:
        raise InputError(f"config.quantity.ratio={config.quantity.ratio} must be above 0 and at most 1")
    _one_of("knowledge.keep", config.knowledge.keep, ("all", "validated"))
    _one_of("student.answer", config.student.answer, ANSWERS)
    _one_of("eval.constraint", config.eval.constraint, MODES)
    _one_of("train.remat", config.train.remat, REMAT)
    _one_of("student.dtype", config.student.dtype, DTYPES)
    _one_of("student.quantization", config.student.quantization, (None, *QUANTIZATIONS))
    for name in config.knowledge.formats:
        _one_of("knowledge.formats", name, FORMATS)
    for name in config.prompting.fields:
        _one_of("prompting.fields", name, FIELDS)
    if config.prompting.fields[:1] != ("title",):
        raise InputError(f"config.prompting.fields={config.prompting.fields!r}: a product's line begins with its title")
    for field in ("data.domains", "knowledge.formats", "prompting.fields", "quantity.applies_to"):
        values = _at(config, field)
        if len(set(values)) != len(values):
            raise InputError(f"config.{field}={values!r} names something twice")
    if not config.data.domains:
        raise InputError("config.data.domains is empty; name at least one domain, as in \"('electronic',)\"")
    at_least = {
        1: (
            "train.epochs",
            "train.batch_size",
            "train.micro_batch_tokens",
            "train.max_length",
            "train.checkpoint_every",
        )
        + (
            "eval.max_new_tokens",
            "eval.batch_size",
            "eval.buckets",
            "eval.orders",
            "student.pair_layers",
            "knowledge.max_new_tokens",
            "knowledge.min_count",
            "teacher.batch_size",
            "mesh.fsdp",
            "mesh.tensor",
        ),
        0: (
            "seed",
            "eval.max_sessions",
            "knowledge.reflections",
            "knowledge.thoughts",
            "knowledge.limit",
            "knowledge.max_tokens",
            "prompting.title_words",
            "prompting.demonstrations",
        )
        + ("train.learning_rate", "train.warmup_ratio", "train.weight_decay"),
        -1: ("train.max_steps",),
    }
    for lowest, fields in at_least.items():
        for field in fields:
            value, most = _at(config, field), MOST_EPOCHS if field == "train.epochs" else MOST
            if not lowest <= value <= most:
                raise InputError(f"config.{field}={value} must be at least {lowest}, and at most {most}")
    if config.lora.lora_alpha < 0:
        raise InputError(f"config.lora.lora_alpha={config.lora.lora_alpha} must be above 0")
    if config.train.warmup_ratio > 1:
        raise InputError(
            f"config.train.warmup_ratio={config.train.warmup_ratio} must be at most 1, a share of the steps"
        )
    if not config.train.max_grad_norm > 0:
        raise InputError(
            f"config.train.max_grad_norm={config.train.max_grad_norm} must be above 0; 0 would stop learning"
        )
    if config.parallel == "pmap" and (config.mesh.fsdp, config.mesh.tensor) != (1, 1):
        raise InputError("config.mesh cuts the base only with config.parallel='mesh'; pmap gives each device a copy")
    _check_answer(config)
    lora_config(config)


def writes_thoughts(config: ConfigDict) -> bool:
    """Whether the student learns to write a thought before its answer."""
    return "thoughts" in config.knowledge.formats and config.knowledge.thoughts_in == "target"


def _check_answer(config: ConfigDict) -> None:
    shown = "thoughts" in config.knowledge.formats and not writes_thoughts(config)
    if shown and not config.prompting.demonstrations:
        raise InputError(
            "config.knowledge.thoughts_in='demonstrations', but prompting.demonstrations=0: there are none to stand in"
        )
    if config.student.answer == "text":
        if config.eval.orders > 1:
            raise InputError(
                f"config.eval.orders={config.eval.orders}: only with student.answer='pairs' are sessions told more than once"
            )
        return
    if writes_thoughts(config):
        raise InputError(
            "config.knowledge.formats: a thought is written before an answer, so only with student.answer='text'; or "
            "knowledge.thoughts_in='demonstrations'"
        )
    beyond = [layer for layer in config.lora.layers_to_transform if layer >= config.student.pair_layers]
    if beyond:
        raise InputError(
            f"config.lora.layers_to_transform={config.lora.layers_to_transform!r}: layer {beyond[0]} is behind the "
            f"{config.student.pair_layers} that student.answer='pairs' computes (student.pair_layers)"
        )


def lora_config(config: ConfigDict) -> LoraConfig:
    """The fields of `config.lora`; pairs (pattern, value) become a mapping."""
    fields = config.lora.to_dict()
    for name in ("rank_pattern", "alpha_pattern"):
        try:
            fields[name] = dict(fields[name])
        except (TypeError, ValueError) as error:
            raise InputError(f"config.lora.{name}={fields[name]!r}: write pairs, as in (('q_proj', 8),)") from error
    lora = LoraConfig(**fields)
    if config.student.answer == "pairs" and not fields["layers_to_transform"] and not lora.is_regex("target_modules"):
        layers = tuple(range(config.student.pair_layers))  # what is behind them is not computed
        lora = replace(lora, layers_to_transform=layers)
    lora.check()
    return lora


def devices(config: ConfigDict) -> Parallel:
    """The devices of this process, as `config.parallel` and `config.mesh` spread work over them. JAX looks for devices here."""
    return Parallel(config.parallel, config.mesh.fsdp, config.mesh.tensor)


def student_settings(config: ConfigDict) -> dict:
    """What `load_student` and `check_student` take besides the source: a fresh adapter, or the one from disk."""
    student = config.student
    return {
        "lora": None if student.adapter else lora_config(config),
        "adapter": student.adapter or None,
        "quantization": student.quantization,
        "dtype": student.dtype,
    }


def train_settings(config: ConfigDict) -> TrainSettings:
    """The fields of `config.train` that the loop takes."""
    of_examples = ("epochs", "shuffle_products", "max_length")
    fields = {name: value for name, value in config.train.items() if name not in of_examples}
    return TrainSettings(seed=config.seed, dropout=config.lora.lora_dropout, **fields)


def teacher_cache(config: ConfigDict) -> str:
    """The folder of recorded teacher answers."""
    return config.teacher.cache_dir or str(cache_root() / "teacher")


def differences(old: dict, new: dict, at: str = "") -> list[str]:
    """The fields in which two nested dicts differ, as "train.epochs: 2 → 3"."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        before, after, where = old.get(key), new.get(key), f"{at}{key}"
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{where}.")
        elif before != after:
            found.append(f"{where}: {before!r} → {after!r}")
    return found


def _at(config: ConfigDict, field: str):
    for name in field.split("."):
        config = config[name]
    return config


def _one_of(field: str, value: str | None, allowed: Collection) -> None:
    if value not in allowed:
        raise InputError(f"config.{field}={value!r} is not supported; choose from {', '.join(map(str, allowed))}")
