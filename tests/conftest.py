"""Tests run offline, on the CPU, and never write outside their temporary folder."""

import os
import subprocess
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import jax
import pytest
from hypothesis import settings

settings.register_profile("kdjax", deadline=None)  # how long an example takes is the machine's mood
settings.load_profile("kdjax")

BUNDLEREC = Path(__file__).resolve().parents[2] / "shared" / "data" / "bundle"


@pytest.fixture(autouse=True, scope="module")
def programs_are_let_go():
    """Of each file's tests when they are over: all together are more mappings than Linux gives a process, which then crashes."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True, scope="module")
def strict_promotion():
    """Our own arithmetic mixes no dtypes by accident. (Optax's does; the training step allows it that.)"""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(kib) → an empty disk of that size, or the same one resized; skipped where nothing may be mounted."""
    folder = tmp_path / "disk"

    def mount(kib: int) -> Path:
        options = f"size={kib}k" + (",remount" if folder.is_mount() else "")
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False, capture_output=True
        )
        if done.returncode:
            pytest.skip(f"a disk cannot be mounted here: {done.stderr.decode().strip()}")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="session")
def bundlerec() -> Path:
    """The folder of the real domains; the test is skipped where it is absent (the data has no licence, so it is not ours to ship)."""
    if not (BUNDLEREC / "electronic").is_dir():
        pytest.skip(f"the BundleRec data is not at {BUNDLEREC}")
    return BUNDLEREC
