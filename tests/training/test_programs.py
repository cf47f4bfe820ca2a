"""What is compiled where a mesh cuts the base: weights are gathered, and no device keeps activations of other shares."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = (
    "pmap/plain",
    "pmap/dropout",
    "fsdp/plain",
    "fsdp/dropout",
    "fsdp/int8",
    "fsdp/full",
    "tensor/plain",
    "both/dropout",
)


@pytest.fixture(scope="module")
def programs() -> dict[str, dict[str, int]]:
    """Case → how many of each collective there are, and the bytes of temporaries per device."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    environment.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)  # collectives are combined by optimizations
    script = Path(__file__).with_name("programs_on_devices.py")
    done = subprocess.run([sys.executable, script, *CASES], check=True, env=environment, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("fsdp")])
def test_fsdp_gathers_weights_and_sums_gradients_once(programs, case):
    """As many temporaries as with a copy of the model on each device; twice as many would be those of other shares."""
    of_copies = programs["pmap/dropout" if "dropout" in case else "pmap/plain"]
    assert of_copies["all-reduce"] == programs[case]["all-reduce"] == 1
    assert programs[case]["temporaries"] < 1.1 * of_copies["temporaries"]
    assert programs[case]["all-gather"]


def test_tensor_cuts_what_is_kept(programs):
    """A share is four times as large as with four shares, and its temporaries are not."""
    assert programs["tensor/plain"]["temporaries"] < 1.5 * programs["pmap/plain"]["temporaries"]
    assert programs["both/dropout"]["temporaries"] < 1.5 * programs["pmap/dropout"]["temporaries"]


def test_the_tensor_axis_sums_only_what_closing_maps_put_out(programs):
    """In a layer twice forward (o_proj, down_proj), their recomputation, and the gradients towards what other maps read."""
    assert 1 < programs["tensor/plain"]["all-reduce"] <= 16
    assert 1 < programs["both/dropout"]["all-reduce"] <= 8
