import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from teacher_stand_in import CALLS
from transformers import AutoModelForCausalLM

import kdjax
from kdjax.errors import InputError
from kdjax.sources import DEFAULT_MODEL, resolve
from kdjax.teacher import Call, Teacher, TeacherCache, open_teacher
from kdjax.teacher.calls import make_request
from kdjax.teacher.hf import HfWorker


@pytest.fixture(scope="module")
def worker(tiny_folder, tiny_tokenizer, tmp_path_factory):
    """One running worker for all tests here. It would die of importing JAX."""
    poisoned = tmp_path_factory.mktemp("poisoned")
    (poisoned / "jax").mkdir()
    (poisoned / "jax" / "__init__.py").write_text("raise RuntimeError('the teacher process must not import jax')")
    worker = HfWorker(resolve(str(tiny_folder)), tiny_tokenizer, "float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(poisoned))
        worker.start()
    yield worker
    worker.close()


@pytest.fixture
def open_tiny(worker, tiny_tokenizer):
    """A teacher over the running worker, with a cache of its own."""

    def open_tiny(cache_dir: Path, log=print) -> Teacher:
        identity = {"kind": "hf", "model": worker.files.digest, "dtype": "float32"}
        return Teacher(TeacherCache(cache_dir, identity), tiny_tokenizer, worker, worker.files.source, 2, log)

    return open_tiny


def test_answers_are_the_models_own(open_tiny, tiny_folder, tiny_tokenizer, tmp_path):
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    for call, answer in zip(CALLS, open_tiny(tmp_path).ask(CALLS), strict=True):
        ids = torch.tensor([tiny_tokenizer.encode(tiny_tokenizer.render(call.messages()))])
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False, pad_token_id=0
        )
        assert answer.prompt_ids.tolist() == ids[0].tolist()
        assert answer.token_ids.tolist() == made[0, ids.shape[1] :].tolist()
        assert answer.text == tiny_tokenizer.decode([token for token in answer.token_ids.tolist() if token != 1])
        assert answer.top_ids.shape == (len(answer.token_ids), call.top_k_logprobs)


def test_a_hit_starts_no_process(open_tiny, tiny_folder, tmp_path):
    recorded = open_tiny(tmp_path).ask(CALLS)
    with open_teacher("hf", str(tiny_folder), tmp_path, log=pytest.fail) as teacher:
        answers = teacher.ask(CALLS)
        assert teacher._worker._process is None
    assert [answer.to_row() for answer in answers] == [answer.to_row() for answer in recorded]


def test_a_call_beyond_the_context_stops_the_pass_before_it_asks(open_tiny, tmp_path):
    long = Call((("user", "y" * 55),), max_new_tokens=7)  # 58 prompt tokens with the template's three: one too many
    fits = Call((("user", "y" * 54),), max_new_tokens=6)
    teacher = open_tiny(tmp_path)
    with pytest.raises(InputError, match=r"58 prompt tokens \+ 7 new ones = 65, its context holds 64"):
        teacher.ask([*CALLS, fits, long])
    assert len(teacher.cache) == 0
    assert len(teacher.ask([fits])) == 1


KILLED = """
import os, signal, sys
from kdjax.teacher import open_teacher
from teacher_stand_in import CALLS
teacher = open_teacher("hf", sys.argv[1], sys.argv[2], batch_size=2)

def on_batch(done, total):
    assert not {"torch", "transformers", "jax"} & set(sys.modules)
    if done == 4:
        print(teacher._worker._process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

teacher.ask(CALLS, on_batch)
"""


def test_a_killed_pass_goes_on_where_it_stopped(open_tiny, worker, tiny_folder, tmp_path, monkeypatch):
    path = os.pathsep.join([str(Path(kdjax.__file__).parents[1]), str(Path(__file__).parent)])
    command = [sys.executable, "-c", KILLED, str(tiny_folder), str(tmp_path / "killed")]
    killed = subprocess.run(
        command, check=False, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    )
    assert killed.returncode == -signal.SIGKILL
    assert ends(int(killed.stdout.split()[-1])), "the teacher's process outlived the run that it belonged to"

    undisturbed = open_tiny(tmp_path / "undisturbed")
    undisturbed.ask(CALLS)
    asked = []
    monkeypatch.setattr(worker, "answer", lambda batch, answer=worker.answer: asked.append(len(batch)) or answer(batch))
    resumed = open_tiny(tmp_path / "killed")
    assert len(resumed.cache) == 4
    resumed.ask(CALLS)
    assert asked == [2, 2, 2]
    (first,), (second,) = (sorted((teacher.cache.folder / "shards").iterdir()) for teacher in (undisturbed, resumed))
    assert first.name == second.name
    assert [path.read_bytes() for path in sorted(first.iterdir())] == [
        path.read_bytes() for path in sorted(second.iterdir())
    ]


def ends(pid: int) -> bool:
    """Whether a process is gone (or a zombie that nobody waits for) within some seconds."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def pretend(tiny_folder, tiny_tokenizer, tmp_path, monkeypatch):
    """A worker whose process runs the given lines instead of a model."""

    def pretend(*lines: str) -> HfWorker:
        (tmp_path / "sitecustomize.py").write_text("\n".join(["import os, sys, time", *lines]))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return HfWorker(resolve(str(tiny_folder)), tiny_tokenizer, "float32")

    return pretend


HELLO = """os.write(1, b'{"device": "none", "versions": {}}\\n')"""


def test_the_last_words_of_a_dead_worker_are_shown(pretend, tiny_tokenizer):
    with pytest.raises(InputError, match=r"(?s)exit status 1.*no such weights"):
        pretend("sys.exit('no such weights')").start()
    worker = pretend(HELLO, "os.write(2, b'out of memory'); os._exit(3)")
    worker.start()
    with pytest.raises(InputError, match=r"(?s)exit status 3.*lower the batch size.*out of memory"):
        worker.answer([make_request({}, CALLS[0], tiny_tokenizer)])


def test_an_interrupted_exchange_leaves_no_reply_behind(pretend, tiny_tokenizer):
    worker = pretend(HELLO, "time.sleep(100)")
    worker.start()
    pid = worker._process.pid
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            worker.answer([make_request({}, CALLS[0], tiny_tokenizer)])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert worker._process is None and ends(pid)


@pytest.mark.real
def test_the_default_model_answers_from_its_gguf(tmp_path):
    call = Call((("user", "What is the capital of France?"),), max_new_tokens=12)
    with open_teacher("hf", DEFAULT_MODEL, tmp_path) as teacher:
        (answer,) = teacher.ask([call])
    assert answer.text == "The capital of France is Paris." and answer.finish_reason == "stop"
    with open_teacher("replay", DEFAULT_MODEL, tmp_path) as teacher:
        assert teacher.ask([call])[0].to_row() == answer.to_row()
