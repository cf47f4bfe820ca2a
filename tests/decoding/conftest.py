from pathlib import Path

import pytest
from decoding_helpers import tiny_student

from kdjax.student import Student


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="session")
def student(model_folder) -> Student:
    return tiny_student(model_folder)
