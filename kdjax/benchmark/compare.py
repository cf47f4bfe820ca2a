"""The job of configs/benchmark.py: measure part by part, compare, and write one table and one plot."""

import platform
from datetime import datetime
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from kdjax.benchmark import results
from kdjax.benchmark.bench import Bench, cores, read, versions
from kdjax.benchmark.checks import check_settings, check_work
from kdjax.benchmark.device import DTYPES, device_name, find_device
from kdjax.benchmark.generation import generation
from kdjax.benchmark.scaling import growth, matmul_rates, start_up
from kdjax.benchmark.training import real_job, same_step
from kdjax.benchmark.workload import build
from kdjax.data import load_annotated
from kdjax.reporting import RunLog, write_json, write_text
from kdjax.sources import load_tokenizer, resolve
from kdjax.student import check_student
from kdjax.study.settings import check
from kdjax.study.workdir import check_workdir, claim
from kdjax.training.batches import common_prefix


def run(config: ConfigDict, workdir: str) -> None:
    """Measure what `benchmark.parts` names; a part that is in results.json already is not measured again.

    Leaves results.json (every single measurement), benchmark.md and benchmark.png in `workdir`.

    Raises:
        InputError: the settings or the machine do not fit (see `checks`), the workdir holds measurements of other versions,
            or the sides do not compute the same.
    """
    backend = find_device()
    config.student.dtype = config.student.dtype or DTYPES[backend]
    check(config)
    check_settings(config, backend)
    folder = Path(workdir)
    domain = load_annotated(config.data.source, config.data.root, config.data.domains[0])
    check_workdir(folder, config, {domain.name: domain})
    files = resolve(config.student.source)
    tokenizer, shape = load_tokenizer(files), check_student(config.student.source)
    work, found = build(domain, tokenizer), read(folder / "results.json")
    check_work(config, work)
    with claim(folder, config, {domain.name: domain}) as check_held, RunLog(folder, check=check_held) as log:
        tokenizer.save(folder / "tokenizer")
        bench = Bench(config, work, files, shape, folder, log, backend)

        def part(name: str, take) -> None:
            if name not in found and (name in config.benchmark.parts or name == "machine"):
                taken = take() | {
                    "versions": versions(),
                    "time": datetime.now().astimezone().isoformat(timespec="seconds"),
                }
                write_json(folder / "results.json", found | {name: taken})
                found.update(read(folder / "results.json"))  # as it is read when the benchmark goes on another day

        part("machine", lambda: _machine(bench, domain.synthetic))
        part("step", lambda: same_step(bench))
        threads = found.get("step", {}).get("threads", cores())
        part("job", lambda: real_job(bench, threads, tokenizer.eos_token))
        part("generation", lambda: generation(bench, threads, tokenizer.eos_ids))
        part("startup", lambda: start_up(bench))
        part("growth", lambda: growth(bench))
        text = results.markdown(found)
        write_text(folder / "benchmark.md", text)
        results.plot(found, folder / "benchmark.png")
        log.say(text)
        log.say(f"{folder / 'benchmark.md'}, {folder / 'benchmark.png'}")


def _machine(bench: Bench, synthetic: bool) -> dict:
    """Where and on what it was measured."""
    work, shape = bench.work, bench.shape
    attention = (shape.num_attention_heads * 2 + shape.num_key_value_heads * 2) * shape.head_dim * shape.hidden_size
    return {
        "devices": [device_name()],
        "cpu": _cpu_name(),
        "cores": cores(),
        "dtype": bench.config.student.dtype,
        "model": bench.config.student.source,
        "linear_parameters": shape.num_hidden_layers * (attention + 3 * shape.hidden_size * shape.intermediate_size),
        "matmul_rates": matmul_rates(bench),
        "synthetic": synthetic,
        "examples": len(work.train),
        "mean_tokens": float(np.mean([len(example) for example in work.train])),
        "mean_targets": float(np.mean([len(example.completion_ids) for example in work.train])),
        "shared_tokens": len(common_prefix(work.train)),
    }


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
