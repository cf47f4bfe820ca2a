"""What is refused before anything is measured: settings that only one side would follow, and machines that lack something."""

import importlib.util
import os
import shutil

from ml_collections import ConfigDict

from kdjax.benchmark.device import DTYPES
from kdjax.benchmark.workload import Workload
from kdjax.errors import InputError

PARTS = ("step", "job", "generation", "startup", "growth")
PACKAGES = ("torch", "transformers", "peft", "trl")
TRL_BATCH = 8  # TRL's own per_device_train_batch_size: a step of ours is so many examples, or a multiple

# The sides agree on these values alone. Fields of the pipeline around (teacher, epochs, …) play no part here.
ONLY = {
    "student.adapter": "",
    "student.quantization": None,
    "lora.lora_dropout": 0.0,
    "lora.target_modules": "all-linear",
    "lora.exclude_modules": "",
    "lora.use_rslora": False,
    "lora.use_dora": False,
    "lora.rank_pattern": (),
    "lora.alpha_pattern": (),
    "lora.layers_to_transform": (),
    "train.weight_decay": 0.0,
    "train.max_grad_norm": 1.0,
}


def check_settings(config: ConfigDict, backend: str) -> None:
    """Everything that can be judged without the data. `backend` is what both sides use, see `find_device`.

    Raises:
        InputError: naming the field, package or program, and what to do.
    """
    parts = config.benchmark.parts
    for part in parts:
        if part not in PARTS:
            raise InputError(f"config.benchmark.parts names {part!r}; choose from {', '.join(PARTS)}")
    if "generation" in parts and "job" not in parts:
        raise InputError("config.benchmark.parts: 'generation' uses the adapter that 'job' trains; name both")
    for field, only in (ONLY | {"student.dtype": DTYPES[backend]}).items():
        section, name = field.split(".")
        if config[section][name] != only:
            raise InputError(
                f"config.{field}={config[section][name]!r}: on a {backend} the benchmark has both sides at {only!r} alone"
            )
    if len(config.data.domains) != 1:
        raise InputError(f"config.data.domains={config.data.domains!r}: the benchmark takes one domain")
    if config.train.batch_size % TRL_BATCH:
        raise InputError(
            f"config.train.batch_size={config.train.batch_size} must be a multiple of {TRL_BATCH}, TRL's batch on a device"
        )
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f'the PyTorch side needs {", ".join(missing)}: pip install -e ".[benchmark]"')
    compiler = os.environ.get("CXX", "g++")
    if {"step", "job"} & set(parts) and not shutil.which(compiler):
        raise InputError(f"torch.compile needs a C++ compiler, and there is no {compiler}: install g++, or set CXX")


def check_work(config: ConfigDict, work: Workload) -> None:
    """What depends on the examples.

    Raises:
        InputError: one does not fit into TRL's packs, which would cut it, or there are too few.
    """
    settings, needed = config.benchmark, (config.benchmark.rounds + 1) * config.train.batch_size
    longest = max(map(len, work.train))
    if longest > settings.pack_length:
        raise InputError(
            f"config.benchmark.pack_length={settings.pack_length}: TRL would cut an example of {longest} tokens; take at least that"
        )
    if len(work.train) < needed or len(work.test) < settings.rounds:
        raise InputError(
            f"config.benchmark.rounds={settings.rounds}: so many rounds and a warm-up take {needed} training examples and "
            f"{settings.rounds} test sessions, and there are {len(work.train)} and {len(work.test)}; take fewer rounds"
        )
