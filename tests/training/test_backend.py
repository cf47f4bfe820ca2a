"""That JAX starts is known before anything is asked: real processes, with what the environment may say."""

import pytest

from kdjax.errors import InputError
from kdjax.training import backend, check_backend


@pytest.fixture
def environment(monkeypatch):
    """environment(NAME=value, …): of the variables that matter, these alone."""

    def environment(**variables: str) -> None:
        for name in ("JAX_PLATFORMS", "XLA_FLAGS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return environment


@pytest.mark.parametrize(
    "variables, message",
    [
        ({"JAX_PLATFORMS": "nonsense"}, "JAX_PLATFORMS=nonsense.*not in the list of known backends.*JAX_PLATFORMS=cpu"),
        ({"JAX_PLATFORMS": "cpu,nonsense"}, "JAX_PLATFORMS=cpu,nonsense: JAX finds no such device"),
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
    with pytest.raises(InputError, match=r"JAX_PLATFORMS=cuda,cpu.*\(it takes cpu\)"):
        check_backend()
    monkeypatch.setattr(backend, "_START", "print('gpu')")
    check_backend()


def test_nothing_is_tried_where_nothing_is_asked_for(environment, monkeypatch):
    monkeypatch.setattr(backend, "_START", "raise SystemExit('tried')")
    for variables in ({}, {"JAX_PLATFORMS": ""}, {"JAX_PLATFORMS": "cpu"}):
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
