"""What all bad inputs have in common: an InputError that says what and where, and files that are as they were."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kdjax.errors import InputError


def contents(folder: Path) -> dict[Path, bytes | None]:
    """Each path below a folder, and the bytes of its file."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory) -> Path:
    """Models of this session's runs; away from tmp_path, whose files must stay as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def refused(tmp_path) -> Callable:
    """refused(act, *words): `act()` is an InputError that says all the words; what is below tmp_path stays as it is."""

    def refused(act: Callable, *words: str) -> None:
        before = contents(tmp_path)
        with pytest.raises(InputError) as error:
            act()
        for word in words:
            assert word in str(error.value)
        assert contents(tmp_path) == before

    return refused
