"""Training and generation compiled for TPUs that are not there; about a minute, where the extra `tpu` is installed."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

if not find_spec("libtpu") and not os.environ.get("TPU_LIBRARY_PATH"):
    pytest.skip("libtpu is not installed: pip install -e .[tpu]", allow_module_level=True)

PROGRAMS = ("accumulate", "update", "admit", "advance")
MOST = 16 * 2**30  # bytes of a v5e chip


@pytest.fixture(scope="module", params=["pmap", "fsdp", "both"])
def compiled(request) -> tuple[str, dict[str, dict]]:
    """A way of spreading work, and what was compiled for it, by the program's name."""
    script = Path(__file__).with_name("compile_ahead.py")
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, script, request.param], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = map(json.loads, done.stdout.splitlines())
    return request.param, {row["program"]: row for row in rows}


def test_everything_compiles_and_fits(compiled):
    """Also generation in 64 slots, which libtpu 0.0.42 to 0.0.46 reject where a loop over rows writes into the cache."""
    _, programs = compiled
    assert tuple(programs) == PROGRAMS
    assert all(0 < row["peak"] < MOST for row in programs.values())


def test_a_step_adds_up_once(compiled):
    """With a copy of the model on each device there is one sum over devices, and where the base is cut one more exchange
    of activations at most: of weights alone, slices are gathered."""
    way, programs = compiled
    collectives = programs["accumulate"]["collectives"]
    if way == "both":  # each layer's closing maps sum over the tensor axis
        assert 1 < collectives.count("all-reduce") <= 8
        return
    assert collectives.count("all-reduce") == 1
    assert (set(collectives) == {"all-reduce"}) is (way == "pmap")


def test_what_needs_no_exchange_has_none(compiled):
    way, programs = compiled
    assert not programs["update"]["collectives"]
    if way == "pmap":
        assert not programs["admit"]["collectives"] + programs["advance"]["collectives"]
