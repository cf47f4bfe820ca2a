"""What all parts measure with: the processes of both sides, and the turns that they take."""

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from kdjax.benchmark.channel import Side
from kdjax.benchmark.device import TORCH
from kdjax.benchmark.workload import Workload, save
from kdjax.errors import InputError
from kdjax.reporting import Progress, RunLog
from kdjax.sources import ModelFiles
from kdjax.student import LoraConfig, load_student
from kdjax.student.families import DecoderConfig

Replies = dict[str, list[dict]]  # side → one reply per round
Turn = Callable[[int], dict]  # number of the round → the reply of a side
PAUSE = 0.5  # seconds before a turn: OpenMP's threads of the side before spin for 0.2 when their work is done


@dataclass
class Bench:
    """What all parts need: the config, the work, the model, where to write, and whom to tell."""

    config: ConfigDict
    work: Workload
    files: ModelFiles
    shape: DecoderConfig
    folder: Path
    log: RunLog
    backend: str  # of both sides, see `find_device`

    def __post_init__(self):
        for left in self.folder.glob("compiled-*"):  # by a benchmark that was killed
            shutil.rmtree(left)
        save(self.work, self.folder / "workload.json")

    @property
    def rounds(self) -> int:
        """How often each side has its turn."""
        return self.config.benchmark.rounds

    def ours(self, task: str, **more) -> Side:
        """A process of the JAX side."""
        config = self.config
        settings = {
            "task": task,
            "source": config.student.source,
            "dtype": config.student.dtype,
            "attention": "own",
            "lora": {"r": config.lora.r, "lora_alpha": config.lora.lora_alpha},
            "learning_rate": config.train.learning_rate,
            "micro_batch_tokens": config.train.micro_batch_tokens,
            "remat": config.train.remat,
            "workload": str(self.folder / "workload.json"),
        }
        return Side("kdjax", "jax_side", settings | more, self.folder)

    def theirs(self, name: str, task: str, **more) -> Side:
        """A process of the PyTorch side."""
        settings = {
            "task": task,
            "folder": str(self.plain_model()),
            "learning_rate": self.config.train.learning_rate,
            "threads": cores(),
            "device": TORCH[self.backend],
            "dtype": self.config.student.dtype,
            "workload": str(self.folder / "workload.json"),
        }
        return Side(name, "torch_side", settings | more, self.folder)

    def plain_model(self) -> Path:
        """The model as a Hugging Face folder: TRL trains no GGUF file."""
        if self.files.gguf is None:
            return self.files.folder.resolve()
        folder = self.folder / "model"
        if not (folder / "config.json").is_file():
            load_student(self.files.source, lora=LoraConfig(r=1, lora_alpha=1)).save_merged(folder)  # B is zero
        return folder

    def text(self, rows: int, length: int) -> list[list[int]]:
        """Full rows of real text: training examples one after the other, cut."""
        stream = np.concatenate([(*e.prompt_ids, *e.completion_ids) for e in self.work.train])
        return np.resize(stream, (rows, length)).tolist()

    def alternate(self, what: str, turns: Mapping[str, Turn]) -> Replies:
        """A B A B …: in each round every side does the same unit of work, alone on the machine.

        Raises:
            InputError: our side compiled in a turn, which is timed: the warm-up before did not hold all that comes.
        """
        replies: Replies = {name: [] for name in turns}
        with Progress(self.rounds * len(turns), what, self.log, every=0) as progress:
            for number in range(self.rounds):
                for name, turn in turns.items():
                    time.sleep(PAUSE)
                    reply = turn(number)
                    if reply.get("compile_seconds"):
                        raise InputError(f"benchmark: {what}: {name} compiled in round {number}, after its warm-up")
                    replies[name].append(reply)
                    progress.update(side=name, seconds=reply["seconds"])
        return replies


def the_same(side: Side, **command: Any) -> Turn:
    """A turn in which a side does the same in every round."""
    return lambda number: side.ask(**command)


def more_than_median(first: dict, rows: list[dict]) -> float:
    """Seconds by which a side's first turn, with empty caches, took longer than the median of its measured ones."""
    return max(0.0, first["seconds"] - float(np.median(seconds(rows))))


def seconds(replies: list[dict]) -> list[float]:
    """The wall seconds of each reply."""
    return [reply["seconds"] for reply in replies]


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def versions() -> dict[str, str]:
    """Of this package and of what both sides run on."""
    names = ("kdjax", "jax", "jaxlib", "flax", "torch", "transformers", "peft", "trl", "numpy")
    return {name: version(name) for name in names} | {"python": platform.python_version()}


def read(path: Path) -> dict:
    """The results so far, empty where there are none.

    Raises:
        InputError: a part was measured with other versions than are installed now.
    """
    found, now = json.loads(path.read_text()) if path.is_file() else {}, versions()
    for part, content in found.items():
        before = content.get("versions", {})
        changed = [f"{name} {before.get(name)} → {now[name]}" for name in now if before.get(name) != now[name]]
        if changed:
            raise InputError(
                f"{path}: {part!r} was measured with other versions: {', '.join(changed)}; choose another --workdir"
            )
    return found
