"""What the machine and the shell give is checked before anything is read: one line, and nothing is made."""

import os
import pwd
import tempfile
from pathlib import Path

import pytest
from study_helpers import SMOKE

import launch as program
from configs import benchmark, sft_text
from kdjax.errors import InputError
from kdjax.sources import cache_root
from kdjax.study.settings import read_flags

ROOT = Path(program.__file__).parent


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """No HOME, and a user that the machine does not know, as in a container with an arbitrary user id."""

    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("KDJAX_CACHE", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)


def test_without_a_home_the_cache_is_named(homeless, monkeypatch, tmp_path):
    with pytest.raises(InputError, match=r"^this user has no home folder .*set KDJAX_CACHE to a folder"):
        cache_root()
    monkeypatch.setenv("KDJAX_CACHE", "~/x")
    with pytest.raises(InputError, match=r"^KDJAX_CACHE=~/x has no home folder"):
        cache_root()
    monkeypatch.setenv("KDJAX_CACHE", str(tmp_path))
    assert cache_root() == tmp_path


# what is wrong: (KDJAX_CACHE, what the error says)
@pytest.mark.parametrize(
    "value, message",
    [
        ("file", "KDJAX_CACHE=file cannot be a folder: .*file is a file"),
        ("file/x", "KDJAX_CACHE=file/x cannot be a folder: .*file is a file"),
        ("gs://bucket/cache", "KDJAX_CACHE=gs://bucket/cache is a URL"),
        ("~no-such-user/x", "KDJAX_CACHE=~no-such-user/x has no home folder"),
        ("/proc/nothing", "KDJAX_CACHE=/proc/nothing cannot be written: /proc is read-only"),
        ("x" * 5000, "File name too long"),
    ],
)
def test_a_cache_that_cannot_be(value, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    monkeypatch.setenv("KDJAX_CACHE", value)
    if value.startswith("/proc") and os.access("/proc", os.W_OK):
        pytest.skip("this user may write to /proc")
    with pytest.raises(InputError, match=message) as error:
        cache_root()
    assert "set KDJAX_CACHE to a folder for models and teacher answers" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_environment_is_checked_before_the_job(launch, monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", "--xla_nonsense")
    process = launch("sft_text.py:smoke", f"--workdir={tmp_path / 'run'}")
    assert process.returncode == 1 and "Traceback" not in process.stderr and not (tmp_path / "run").exists()
    assert process.stderr.splitlines()[-1].startswith(
        "error: JAX cannot start with XLA_FLAGS='--xla_nonsense': Unknown flag"
    )


@pytest.mark.parametrize("value, folder", [("", "home/.cache/kdjax"), (None, "home/.cache/kdjax"), ("here", "here")])
def test_a_cache_is_one_folder_wherever_one_stands_later(value, folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KDJAX_CACHE", value) if value is not None else monkeypatch.delenv("KDJAX_CACHE", raising=False)
    assert cache_root() == tmp_path / folder


@pytest.mark.parametrize(
    "workdir, message",
    [("", "--workdir is empty; leave it out"), ("gs://bucket/run", "--workdir=gs://bucket/run is a URL")],
)
def test_a_workdir_that_is_no_folder(launch, workdir, message):
    process = launch("sft_text.py:smoke", f"--workdir={workdir}")
    assert process.returncode == 1 and process.stderr.splitlines()[-1].startswith(f"error: {message}")
    assert not (ROOT / "gs:").exists()


def test_no_folder_for_temporary_files(monkeypatch, tmp_path):
    def none():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setenv("KDJAX_CACHE", str(tmp_path))
    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(InputError, match="No usable temporary directory.*set TMPDIR"):
        program.check_environment()


@pytest.mark.parametrize(
    "given, message",
    [
        (["--config=configs/sft_rule.py"], "sft_rule.py: No such file.*did you mean --config=configs/sft_rules.py"),
        (
            ["--config", "sft_rules:smoke"],
            "--config=sft_rules: No such file.*did you mean --config=configs/sft_rules.py",
        ),
        (["-config=study_metods.py"], "--config=study_metods.py: No such file"),
        (["--config=configs"], "Is a directory"),
        (["--config="], "No such file"),
    ],
)
def test_a_config_that_is_not_there_names_the_nearest(given, message, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=message):
        program.check_config_file(["launch.py", *given])
    if "did you mean" in message:
        monkeypatch.chdir(tmp_path)  # from anywhere the name leads to the file
        with pytest.raises(InputError, match="did you mean --config=(.*)\\?") as error:
            program.check_config_file(["launch.py", *given])
        assert Path(str(error.value).rpartition("--config=")[2].rstrip("?")).is_file()


def test_a_config_that_is_there_is_no_error(monkeypatch):
    monkeypatch.chdir(ROOT)
    program.check_config_file(["launch.py", "--config=configs/sft_rules.py:smoke", "--config.seed=1"])


@pytest.mark.parametrize("word", ["None", "none", ""])
@pytest.mark.parametrize(
    "config, field",
    [(sft_text.get_config("smoke"), "student.quantization"), (benchmark.get_config("smoke"), "student.dtype")],
    ids=["quantization", "dtype"],
)
def test_an_optional_field_can_be_left_empty(config, field, word):
    """Also one that was set before."""
    config.student.update({field.partition(".")[2]: "x"})
    read_flags(config, {field: word})
    assert config.student[field.partition(".")[2]] is None


def test_none_is_a_word_where_a_field_is_not_optional():
    config = sft_text.get_config("smoke")
    config.eval.constraint = "none"
    read_flags(config, {"eval.constraint": "none", "student.adapter": "", "seed": 0, "eval.orders": 1})
    assert (config.eval.constraint, config.student.adapter) == ("none", "")


@pytest.mark.parametrize(
    "given, read",
    [
        (("electronic,clothing",), ("electronic", "clothing")),
        (("electronic, clothing",), ("electronic", "clothing")),
        (("[electronic,clothing]",), ("electronic", "clothing")),
        (("electronic", "clothing"), ("electronic", "clothing")),
        (("electronic",), ("electronic",)),
        (("electronic,",), ("electronic",)),
        (("",), ()),
        ((), ()),
    ],
)
def test_names_are_cut_at_commas(given, read):
    config = sft_text.get_config("smoke")
    read_flags(config, {"data.domains": given, "lora.layers_to_transform": (0, 1)})
    assert config.data.domains == read and config.lora.layers_to_transform == ()


def test_the_command_line_is_read_so(launch, tmp_path):
    flags = ["--config.data.domains=north,south", "--config.data.source=jsonl", f"--config.data.root={tmp_path}"]
    (tmp_path / "north").mkdir()
    process = launch("sft_text.py:smoke", f"--workdir={tmp_path / 'run'}", "--config.student.quantization=None", *flags)
    assert process.returncode == 1 and process.stderr.splitlines()[-1].startswith("error: ")
    assert f"{tmp_path}/north/items.jsonl: the file is missing" in process.stderr


def test_a_console_without_its_characters_is_no_reason_to_end(finished, launch, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    workdir, _ = finished
    process = launch(*SMOKE, f"--workdir={workdir}")
    assert process.returncode == 0 and "\\u2192" in process.stdout
