"""That JAX starts is known before anything is asked: real processes, with what the environment may say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdjax.errors import InputError
from kdjax.training import backend, check_backend

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(monkeypatch):
    """environment(NAME=value, …): of the variables that matter, these alone."""

    def environment(**variables: str) -> None:
        for name in [name for name in os.environ if name.startswith(("JAX_", "XLA_"))]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return environment


@pytest.mark.parametrize(
    "variables, message",
    [
        ({"JAX_PLATFORMS": "nonsense"}, "JAX_PLATFORMS=nonsense.*not in the list of known backends.*JAX_PLATFORMS=cpu"),
        ({"JAX_PLATFORMS": "cpu,nonsense"}, r"\(JAX_PLATFORMS=cpu,nonsense\): .*nonsense"),
        ({"JAX_PLATFORMS": "cpu", "JAX_PLATFORM_NAME": "cuda"}, r"JAX_PLATFORM_NAME=cuda.*Unknown backend cuda"),
        ({"JAX_NUM_CPU_DEVICES": "0"}, r"\(JAX_NUM_CPU_DEVICES=0\): .*process_index"),
        ({"XLA_FLAGS": "--xla_nonsense=1"}, "XLA_FLAGS='--xla_nonsense=1': Unknown flag in XLA_FLAGS"),
    ],
)
def test_what_does_not_start_is_an_error(environment, variables, message):
    environment(**variables)
    with pytest.raises(InputError, match=message) as error:
        check_backend()
    assert "\n" not in str(error.value)


def test_another_platform_than_the_first_is_an_error(environment, monkeypatch):
    """As JAX takes the CPU for JAX_PLATFORMS=cuda,cpu where there is no GPU."""
    environment(JAX_PLATFORMS="cuda,cpu")
    monkeypatch.setattr(backend, "_START", "print('cpu')")
    with pytest.raises(InputError, match=r"\(JAX_PLATFORMS=cuda,cpu\): it starts on cpu"):
        check_backend()
    monkeypatch.setattr(backend, "_START", "print('gpu')")
    check_backend()


def test_nothing_is_tried_where_nothing_is_asked_for(environment, monkeypatch):
    monkeypatch.setattr(backend, "_START", "raise SystemExit('tried')")
    harmless = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_COMPILATION_CACHE_DIR": "x", "JAX_NUM_CPU_DEVICES": ""}
    for variables in ({}, {"JAX_PLATFORMS": ""}, {"JAX_PLATFORMS": "cpu"}, harmless):
        environment(**variables)
        check_backend()
    environment(JAX_PLATFORMS="tpu")
    with pytest.raises(InputError, match="tried"):
        check_backend()
    monkeypatch.setattr(backend, "has_tpu_chips", lambda: True)
    check_backend()
    environment(XLA_FLAGS="--xla_force_host_platform_device_count=2")
    monkeypatch.setattr(backend, "has_tpu_chips", lambda: False)
    with pytest.raises(InputError, match="tried"):
        check_backend()


@pytest.mark.parametrize(
    "name, value",
    [
        ("JAX_NUM_CPU_DEVICES", "x"),
        ("JAX_ENABLE_X64", "maybe"),
        ("JAX_DEFAULT_MATMUL_PRECISION", "foo"),
        ("JAX_TRACEBACK_FILTERING", "x"),
    ],
)
def test_what_jax_cannot_be_imported_with_is_one_line(environment, name, value):
    environment(**{name: value})
    done = subprocess.run([sys.executable, "launch.py"], check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: JAX cannot start as this shell asks ({name}={value}): ")


def test_numbers_have_32_bits_whatever_the_shell_says(environment, tmp_path):
    environment(JAX_ENABLE_X64="1", KDJAX_CACHE=str(tmp_path))
    code = "import jax, launch; launch.check_environment(); print(jax.numpy.arange(2).dtype)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "int32\n"
