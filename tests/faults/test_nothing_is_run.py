"""Nothing is unpickled and no code of strangers is run: as the sources say, and as a folder that tries it finds."""

import ast
import json
import pickle
import shutil
from pathlib import Path

import pytest

import kdjax
from kdjax.errors import InputError
from kdjax.sources.tiny import write_tiny_model
from kdjax.student import LoraConfig, load_student
from kdjax.teacher import open_teacher

ROOT = Path(kdjax.__file__).parents[1]
SOURCES = [*Path(kdjax.__file__).parent.rglob("*.py"), *ROOT.glob("configs/*.py"), ROOT / "launch.py"]
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "read_pickle", "os.system"}
TRUE = {"trust_remote_code", "allow_pickle", "shell"}


def offences(path: Path):
    """What a source file does that could run what a file says: `name` where it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").split(".")[0]]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            names = [name for name in CALLS if called == name or "." in name and called.endswith(name)]
            names += [key.arg for key in node.keywords if key.arg in TRUE and ast.unparse(key.value) != "False"]
        yield from (f"{path.name}:{node.lineno} {name}" for name in names if name in MODULES | CALLS | TRUE)


def test_no_source_unpickles_or_trusts_remote_code():
    assert len(SOURCES) > 100
    assert [offence for path in SOURCES for offence in offences(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=trusted)",
        "eval(text)",
        "subprocess.run(command, shell=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(line, tmp_path):
    (tmp_path / "source.py").write_text(line)
    assert [*offences(tmp_path / "source.py")]


class Evil:
    """Unpickled, it leaves a file behind."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path) -> Path:
    """What a pickle makes if it is read, as `pickle.loads` proves."""
    pickle.loads(pickle.dumps(Evil(tmp_path / "proof")))
    assert (tmp_path / "proof").exists()
    return tmp_path / "mark"


@pytest.fixture
def folder(tmp_path) -> Path:
    write_tiny_model(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl", "model.ckpt", "model.safetensors"])
def test_a_pickled_model_is_refused_unread(name, folder, mark):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(InputError, match="safetensors"):
        load_student(str(folder))
    with pytest.raises(InputError, match="safetensors"):
        open_teacher("hf", str(folder), folder.parent / "cache").check()
    assert not mark.exists()


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "adapter_model.safetensors"])
def test_a_pickled_adapter_is_refused_unread(name, folder, mark, tmp_path):
    load_student(str(folder), lora=LoraConfig(r=2)).save_adapter(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    (tmp_path / "adapter" / name).write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(InputError, match="safetensors"):
        load_student(str(folder), adapter=tmp_path / "adapter")
    assert not mark.exists()


def test_code_that_a_model_brings_is_left_alone(folder, mark):
    """With `auto_map` a model asks transformers to import a file of its folder."""
    shutil.copy(folder / "config.json", folder / "as-it-was.json")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n")
    load_student(str(folder)).tokenizer.render([{"role": "user", "content": "hi"}])
    assert not mark.exists()
