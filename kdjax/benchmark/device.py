"""What the sides are compared on: one CPU in float32, or one GPU in bfloat16."""

import os
import shutil
import subprocess

import jax

from kdjax.errors import InputError

DTYPES = {"cpu": "float32", "gpu": "bfloat16"}  # of the frozen base and activations; adapters are float32
TORCH = {"cpu": "cpu", "gpu": "cuda"}  # the same devices as PyTorch calls them


def find_device() -> str:
    """The backend that both sides use, a key of DTYPES.

    JAX looks for devices here. From now on neither this process nor those that it starts take more of a GPU's memory than
    they use, since they share it.

    Raises:
        InputError: the backend is another one, or there are several devices.
    """
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    devices = jax.local_devices()
    backend = devices[0].platform
    if backend not in DTYPES or len(devices) != 1:
        raise InputError(
            f"the benchmark compares on one CPU device or one GPU, and JAX has {len(devices)} of {backend}: "
            "set CUDA_VISIBLE_DEVICES=0, or JAX_PLATFORMS=cpu and no xla_force_host_platform_device_count"
        )
    return backend


def device_name() -> str:
    """The device for the table; of a GPU with the versions of its driver and of CUDA."""
    device = jax.local_devices()[0]
    name = f"{device.platform} {device.device_kind}"
    if device.platform == "cpu":
        return name
    versions = [device.client.platform_version.splitlines()[-1]]  # as in "cuda 12090"
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
        versions += [f"driver {line}" for line in told[:1]]
    return f"{name}, {', '.join(versions)}"
