"""What a GPU would compute, as far as a CPU can tell: both sides in bfloat16, rows as a GPU gets them, and the choice of the device."""

import os
from collections import deque
from itertools import chain
from types import SimpleNamespace

import jax
import pytest

from configs.benchmark import get_config
from kdjax.benchmark import device, jax_side
from kdjax.benchmark.checks import check_settings
from kdjax.benchmark.generation import same_answers
from kdjax.benchmark.training import agree
from kdjax.benchmark.workload import Workload, build, save
from kdjax.data import load_domain
from kdjax.errors import InputError
from kdjax.sources import load_tokenizer, resolve
from kdjax.student import attention, lora
from kdjax.training import Parallel, batch_members

TRAIN, TEST, BATCH, STEPS = 24, 6, 8, 3


class Commands:
    """A channel whose commands are all there from the start; it keeps the replies."""

    def __init__(self, *commands):
        self._waiting, self.replies = deque(commands), []

    def __iter__(self):
        while (command := self.receive()) is not None:
            yield command

    def receive(self):
        return self._waiting.popleft() if self._waiting else None

    def reply(self, **fields):
        self.replies.append(fields)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(settings of our side, settings of the other, the work) of the tiny model in bfloat16, with the adapter that both start from."""
    for name in ("torch", "peft", "trl"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("sides")
    files = resolve("tiny-random")
    tokenizer, domain = load_tokenizer(files), load_domain("demo", "", "demo")
    work = build(domain, tokenizer)
    work = Workload(work.train[:TRAIN], work.test[:TEST], work.n_items[:TEST])
    save(work, folder / "workload.json")
    ours = {
        "source": "tiny-random",
        "dtype": "bfloat16",
        "attention": "own",
        "lora": {"r": 4, "lora_alpha": 32.0},
        "learning_rate": 5e-4,
        "micro_batch_tokens": 4800,
        "remat": "linears",
        "workload": str(folder / "workload.json"),
    }
    theirs = {
        "folder": str(files.folder.resolve()),
        "adapter": str(folder / "initial"),
        "device": "cpu",
        "dtype": "bfloat16",
        "learning_rate": 5e-4,
        "workload": str(folder / "workload.json"),
    }
    jax_side.train(ours, Commands({"save": theirs["adapter"]}))
    return ours, theirs, work


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Rows of equal length, side by side: how examples are laid out for any device but a CPU."""
    monkeypatch.setattr(Parallel, "platform", "gpu")
    for module in (attention, lora):
        monkeypatch.setattr(module, "target_platform", lambda: "gpu")


def test_the_same_step_has_the_same_loss_in_bfloat16(made, as_on_a_gpu):
    from kdjax.benchmark import torch_side

    ours, theirs, work = made
    stream = [token for example in work.train for token in (*example.prompt_ids, *example.completion_ids)]
    steps = [{"tokens": [stream[row * 97 : row * 97 + 65] for row in range(4)]}] * STEPS
    jax_channel, torch_channel = Commands(*steps), Commands(*steps)
    jax_side.step(ours, jax_channel)
    torch_side.step(theirs | {"compile": False}, torch_channel)
    losses = {
        name: [reply["loss"] for reply in channel.replies]
        for name, channel in {"kdjax": jax_channel, "torch eager": torch_channel}.items()
    }
    agree("a step", losses, "bfloat16")
    assert losses["kdjax"][-1] < losses["kdjax"][0]
    assert [reply["compile_seconds"] > 0 for reply in jax_channel.replies] == [True] + [False] * (STEPS - 1)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")  # TRL sets it itself
def test_the_real_job_has_the_same_losses_and_answers_in_bfloat16(made, as_on_a_gpu, tmp_path):
    from kdjax.benchmark import torch_side

    ours, theirs, _ = made
    members = [batch_members(TRAIN, BATCH, 0, step) for step in range(STEPS)]
    adapter = str(tmp_path / "adapter")
    jax_channel = Commands({"warm": members}, *({"members": step} for step in members), {"save": adapter})
    jax_side.train(ours, jax_channel)
    tokenizer = load_tokenizer(resolve("tiny-random"))
    tokenizer.save(tmp_path / "tokenizer")
    trl = theirs | {
        "tokenizer": str(tmp_path / "tokenizer"),
        "eos_token": tokenizer.eos_token,
        "order": list(chain.from_iterable(members)),
        "batch_size": BATCH,
        "scratch": str(tmp_path / "trl"),
        "arguments": {"per_device_train_batch_size": 4},
    }
    torch_channel = Commands(*[{}] * STEPS)
    torch_side.train(trl, torch_channel)
    steps = {"kdjax": jax_channel.replies[1:-1], "TRL, padded": torch_channel.replies}
    agree("the real job", {name: [row["loss"] for row in rows] for name, rows in steps.items()}, "bfloat16")
    for field in ("examples", "real_tokens"):
        assert len({tuple(row[field] for row in rows) for rows in steps.values()}) == 1
    assert not any(row["compile_seconds"] for row in steps["kdjax"])

    generate = {"adapter": adapter, "lora": None, "max_new_tokens": 24}
    everyone = list(range(TEST))
    jax_channel = Commands({"members": everyone, "mode": "none"})
    jax_side.generate(ours | generate | {"batch_size": 4, "buckets": 2}, jax_channel)
    torch_channel = Commands({"members": everyone, "batch_size": 4})
    torch_side.generate(theirs | generate | {"eos_ids": list(tokenizer.eos_ids)}, torch_channel)

    def ask(gap):
        channel = Commands({"gap": gap})
        jax_side.generate(ours | generate | {"batch_size": 4, "buckets": 2}, channel)
        return channel.replies[0]

    answers = (channel.replies[0]["answers"] for channel in (jax_channel, torch_channel))
    assert sum(same_answers(SimpleNamespace(ask=ask), *answers, "bfloat16").values()) == TEST


def test_the_device_decides_the_dtype(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    assert device.find_device() == "cpu" and os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    for backend, dtype, other in (("cpu", "float32", "bfloat16"), ("gpu", "bfloat16", "float32")):
        monkeypatch.setattr(jax, "local_devices", lambda backend=backend: [SimpleNamespace(platform=backend)])
        config = get_config("smoke")
        config.student.dtype = device.DTYPES[device.find_device()]
        assert config.student.dtype == dtype
        check_settings(config, backend)
        config.student.dtype = other
        with pytest.raises(InputError, match=f"config.student.dtype='{other}': on a {backend}"):
            check_settings(config, backend)


@pytest.mark.parametrize(("backend", "count"), [("tpu", 1), ("gpu", 2), ("cpu", 4)])
def test_other_devices_and_several_are_refused(monkeypatch, backend, count):
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(platform=backend)] * count)
    with pytest.raises(InputError, match=f"{count} of {backend}: set CUDA_VISIBLE_DEVICES=0"):
        device.find_device()


def test_a_gpu_is_named_with_its_driver(monkeypatch):
    assert device.device_name() == "cpu cpu"
    client = SimpleNamespace(platform_version="PJRT C API\ncuda 13000")
    gpu = SimpleNamespace(platform="gpu", device_kind="NVIDIA H100", client=client)
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu])
    monkeypatch.setattr(device.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(device.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="580.159.04\n"))
    assert device.device_name() == "gpu NVIDIA H100, cuda 13000, driver 580.159.04"


def test_the_peak_is_the_devices_where_it_counts_its_memory(monkeypatch):
    assert jax_side.peak_bytes() is None
    gpu = SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 123})
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu])
    assert jax_side.peak_bytes() == 123
