"""One tiny student for all tests of the room, and a compile cache, because most of their time is compilation."""

from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from training_helpers import Descent, Plain, one_group, random_examples, tiny_student

from kdjax.student import Student


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory) -> Path:
    """The folder of compiled programs; a training that is built anew finds them there."""
    folder = tmp_path_factory.mktemp("compiled")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    compilation_cache.reset_cache()
    yield folder
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="session")
def student(model_folder) -> Student:
    return tiny_student(model_folder)


@pytest.fixture(scope="session")
def two_domains():
    """11 and 6 examples behind different beginnings."""
    return random_examples("a", 11, prefix=13) + random_examples("b", 6, prefix=13)


@pytest.fixture(scope="session")
def groups(two_domains):
    """The plan with their prefixes, and one bucket for both: one compiled program serves most tests."""
    return one_group(two_domains, prefix=13)


@pytest.fixture(scope="session")
def descent(student) -> Descent:
    return Descent(student)


@pytest.fixture(scope="session")
def plain(student, two_domains) -> Plain:
    return Plain(student, len(two_domains), max(map(len, two_domains)))
