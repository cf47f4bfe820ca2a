"""The job of configs/benchmark.py: measure part by part, compare, and write one table and one plot."""

import importlib.util
import os
import platform
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from kdjax.benchmark import measure, results
from kdjax.benchmark.workload import build
from kdjax.data import load_domain
from kdjax.errors import InputError
from kdjax.reporting import RunLog, write_json, write_text
from kdjax.sources import load_tokenizer, resolve
from kdjax.student import check_student
from kdjax.study.settings import check
from kdjax.study.workdir import check_workdir, claim
from kdjax.training.batches import common_prefix

PARTS = ("step", "job", "generation", "startup", "growth")


def run(config: ConfigDict, workdir: str) -> None:
    """Measure what `benchmark.parts` names; a part that is in results.json already is not measured again.

    Leaves results.json (every single measurement), benchmark.md and benchmark.png in `workdir`.

    Raises:
        InputError: a package of the PyTorch side is missing, or the sides do not compute the same.
    """
    check(config)
    for part in config.benchmark.parts:
        if part not in PARTS:
            raise InputError(f"config.benchmark.parts names {part!r}; choose from {', '.join(PARTS)}")
    missing = [name for name in ("torch", "transformers", "peft", "trl") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f'the PyTorch side needs {", ".join(missing)}: pip install -e ".[benchmark]"')
    folder = Path(workdir)
    domain = load_domain(config.data.source, config.data.root, config.data.domains[0])
    check_workdir(folder, config, {domain.name: domain})
    files = resolve(config.student.source)
    tokenizer, shape = load_tokenizer(files), check_student(config.student.source)
    claim(folder, config, {domain.name: domain})
    tokenizer.save(folder / "tokenizer")
    with RunLog(folder) as log:
        bench = measure.Bench(config, build(domain, tokenizer), files, shape, folder, log)
        found = measure.read(folder / "results.json")

        def part(name: str, take) -> None:
            if name not in found and (name in config.benchmark.parts or name == "machine"):
                write_json(folder / "results.json", found | {name: take()})
                found.update(measure.read(folder / "results.json"))

        part("machine", lambda: _machine(bench, domain.synthetic))
        part("step", lambda: measure.same_step(bench))
        threads = found.get("step", {}).get("threads", len(os.sched_getaffinity(0)))
        part("job", lambda: measure.real_job(bench, threads, tokenizer.inner.id_to_token(tokenizer.eos_id)))
        part("generation", lambda: measure.generation(bench, threads, tokenizer.eos_ids))
        part("startup", lambda: measure.start_up(bench))
        part("growth", lambda: measure.growth(bench))
        text = results.markdown(found)
        write_text(folder / "benchmark.md", text)
        results.plot(found, folder / "benchmark.png")
        log.say(text)
        log.say(f"{folder / 'benchmark.md'}, {folder / 'benchmark.png'}")


def _machine(bench: measure.Bench, synthetic: bool) -> dict:
    """Where and on what it was measured."""
    work, shape = bench.work, bench.shape
    attention = (shape.num_attention_heads * 2 + shape.num_key_value_heads * 2) * shape.head_dim * shape.hidden_size
    return {
        "devices": [f"{device.platform} {device.device_kind}" for device in jax.local_devices()],
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "dtype": bench.config.student.dtype,
        "versions": measure.versions() | {"python": platform.python_version()},
        "model": bench.config.student.source,
        "linear_parameters": shape.num_hidden_layers * (attention + 3 * shape.hidden_size * shape.intermediate_size),
        "matmul_rate": measure.matmul_rate(bench),
        "synthetic": synthetic,
        "examples": len(work.train),
        "mean_tokens": float(np.mean([len(example) for example in work.train])),
        "mean_targets": float(np.mean([len(example.completion_ids) for example in work.train])),
        "shared_tokens": len(common_prefix(work.train)),
    }


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
