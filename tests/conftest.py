"""Tests run offline, on the CPU, and never write outside their temporary folder."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
from hypothesis import settings

settings.register_profile("kdjax", deadline=None)  # how long an example takes is the machine's mood
settings.load_profile("kdjax")

BUNDLEREC = Path(__file__).resolve().parents[2] / "shared" / "data" / "bundle"


@pytest.fixture(scope="session")
def bundlerec() -> Path:
    """The folder of the real domains; the test is skipped where it is absent (the data has no licence, so it is not ours to ship)."""
    if not (BUNDLEREC / "electronic").is_dir():
        pytest.skip(f"the BundleRec data is not at {BUNDLEREC}")
    return BUNDLEREC
