"""What others do with a trained adapter: bundles for new sessions, PEFT, golden outputs."""

import json
import shutil

import numpy as np
import pytest
import yaml
from tiny_encoder import write_tiny_encoder

from kdjax.data import load_domain
from kdjax.prompting import Neighbours
from kdjax.reporting import results_markdown
from kdjax.student import load_student
from kdjax.study.export import trained_with


@pytest.fixture
def shop(tmp_path):
    items = [{"id": f"B{i}", "title": f"thing {i}"} for i in range(14)]
    sessions = [{"id": "s1", "items": ["B1", "B2", "B3"]}, {"id": "s2", "items": [f"B{i}" for i in range(13)]}]
    for name, rows in (("items", items), ("sessions", sessions)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def flags(shop, adapter):
    return [
        f"--workdir={shop / 'out'}",
        f"--config.student.adapter={adapter}",
        f"--config.generate.sessions_file={shop / 'sessions.jsonl'}",
        f"--config.generate.items_file={shop / 'items.jsonl'}",
    ]


def test_bundles_of_new_sessions_are_items_of_the_session(finished, launch, shop):
    process = launch("generate.py:smoke", *flags(shop, finished[0] / "adapter"))
    assert process.returncode == 0, process.stderr[-3000:]
    rows = [json.loads(line) for line in (shop / "out" / "bundles.jsonl").read_text().splitlines()]
    assert [row["session_id"] for row in rows] == ["s1", "s2"]
    named = [bundle["items"] for row in rows for bundle in row["bundles"]]
    assert {item for bundle in rows[0]["bundles"] for item in bundle["items"]} <= {"B1", "B2", "B3"}
    assert named and all(len(set(items)) == len(items) >= 2 for items in named)
    assert "probability" not in str(rows) and "2 sessions, " in process.stdout  # it writes, and gives none


def test_what_a_log_holds_is_answered_line_by_line_from_standard_input(finished, launch, monkeypatch):
    """A product without a catalogue, a session of one product, a line that is no session: each has an answer in its place."""
    lines = [
        {"id": "s1", "products": [{"title": "thing 1"}, {"title": "thing 2"}]},
        {"id": 2, "products": [{"title": "thing 1"}], "time": "12:30"},
        {"id": "long", "products": [{"title": "x" * 9000}, {"title": "thing"}]},
        {"id": "s4", "items": ["B1", "B2"]},
    ]
    standard = ["--config.generate.sessions_file=-", "--config.generate.out=-"]
    adapter = f"--config.student.adapter={finished[0] / 'adapter'}"
    text = "\n".join(map(json.dumps, lines)) + "\nno session\n"
    process = launch("generate.py:smoke", adapter, *standard, input=text)
    assert process.returncode == 0, process.stderr[-3000:]
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    assert [row["session_id"] for row in rows] == ["s1", "2", "long", "s4", "line 5"]
    assert [row["bundles"] for row in rows[1:]] == [[]] * 4
    assert "tokens, which is more than the student reads" in rows[2]["error"]
    assert "the product 'B1' is not in" in rows[3]["error"] and "not JSON" in rows[4]["error"]
    assert "5 sessions" in process.stderr and "2 lines that cannot be read" in process.stderr
    process = launch("generate.py:smoke", adapter, *standard, "--config.generate.strict=True", input=text)
    assert process.returncode and "line 2: " in process.stderr and "Traceback" not in process.stderr


def test_an_adapter_of_a_quantised_base_is_used_on_it(launch, shop, cache, monkeypatch):
    """DoRA over nf4 with two ranks: the golden outputs, and what new sessions get, are of the base it was trained on."""
    adapter = shop / "run" / "adapter"
    changed = [
        "--config.lora.use_dora=True",
        "--config.lora.rank_pattern=(('q_proj',2),)",
        "--config.train.max_steps=2",
    ]
    process = launch("sft_text.py:smoke", f"--workdir={shop / 'run'}", "--config.student.quantization=nf4", *changed)
    assert process.returncode == 0, process.stderr[-3000:]
    assert 'quantization="nf4"' in (adapter / "README.md").read_text()
    process = launch("generate.py:smoke", *flags(shop, adapter), "--config.student.quantization=int8")
    assert process.returncode and "kept in nf4, not int8" in process.stderr
    process = launch("generate.py:smoke", *flags(shop, adapter))
    assert process.returncode == 0, process.stderr[-3000:]
    monkeypatch.setenv("KDJAX_CACHE", str(cache))
    golden = json.loads((adapter / "golden.json").read_text())
    student = load_student("tiny-random", adapter=adapter, quantization="nf4")
    logits = np.asarray(student.logits(np.asarray([golden["prompt_ids"]])))[0, -1]
    np.testing.assert_allclose(
        logits[golden["first_logits"]["ids"]], golden["first_logits"]["values"], rtol=0, atol=1e-5
    )


def test_demonstrations_are_found_as_in_training(launch, shop, cache, monkeypatch):
    """By the sentence encoder that kdjax.json names, among the training sessions that stand beside it."""
    adapter = shop / "run" / "adapter"
    sessions = load_domain("demo", "", "demo").splits
    encoder = shop / "encoder"
    encoder.mkdir()
    write_tiny_encoder(encoder, [title for session in sessions["train"] for title in session.titles])
    process = launch(
        "sft_text.py:smoke",
        f"--workdir={shop / 'run'}",
        f"--config.prompting.encoder={encoder}",
        "--config.prompting.demonstrations=1",
        "--config.train.max_length=4096",
        "--config.train.max_steps=1",
        "--config.eval.max_sessions=2",
    )
    assert process.returncode == 0, process.stderr[-3000:]
    process = launch("generate.py:smoke", *flags(shop, adapter))
    assert process.returncode == 0, process.stderr[-3000:]
    shown, find = trained_with(adapter)["shown"]["demo"], Neighbours(sessions["train"], str(encoder))
    asked = sessions["test"][:5]
    found = [demonstration.session.id for session in asked for demonstration in shown(session, trains=False)]
    assert found == [near.id for session in asked for near in find(session, 1)]
    assert found != [near.id for session in asked for near in Neighbours(sessions["train"])(session, 1)]


def test_the_folder_of_a_run_is_not_written_into(finished, launch, shop):
    workdir, _ = finished
    process = launch("generate.py:smoke", *flags(shop, workdir / "adapter")[1:], f"--workdir={workdir}")
    assert process.returncode and "belongs to another run" in process.stderr
    assert not (workdir / "bundles.jsonl").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda shop, adapter: (shop / "items.jsonl").write_text('{"id": "B1"}'), "its title is None"),
        (lambda shop, adapter: (shop / "sessions.jsonl").unlink(), "sessions.jsonl"),
        (lambda shop, adapter: (adapter / "kdjax.json").unlink(), "kdjax.json"),
        (lambda shop, adapter: edit(adapter / "kdjax.json", {"max_new_tokens": 3}), "shortest answer takes"),
        (lambda shop, adapter: (adapter / "adapter_model.safetensors").write_bytes(b"torn"), "safetensors"),
        (
            lambda shop, adapter: edit(adapter / "kdjax.json", {"base": {"source": "tiny-random", "digest": "0"}}),
            "other weights",
        ),
    ],
    ids=["item", "sessions", "description", "budget", "adapter", "base"],
)
def test_bad_input_names_what_is_wrong(finished, launch, shop, tmp_path, change, message):

    adapter = tmp_path / "adapter"
    shutil.copytree(finished[0] / "adapter", adapter)
    change(shop, adapter)
    process = launch("generate.py:smoke", *flags(shop, adapter))
    assert process.returncode and message in process.stderr and "Traceback" not in process.stderr
    if message != "safetensors":  # found when it is read, after the folder was claimed
        assert not (shop / "out").exists()


def test_the_length_of_training_does_not_bound_a_shop(finished, launch, shop):
    process = launch("generate.py:smoke", *flags(shop, finished[0] / "adapter"), "--config.train.max_length=10")
    assert process.returncode == 0, process.stderr[-3000:]


def test_the_model_card_has_the_numbers_of_the_run(finished):
    workdir, _ = finished
    text, metrics = (workdir / "adapter" / "README.md").read_text(), json.loads((workdir / "metrics.json").read_text())
    [index] = yaml.safe_load(text.split("---\n")[1])["model-index"]
    [result] = index["results"]
    assert result["dataset"] == {"name": "demo (synthetic)", "type": "demo", "split": "test"}
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {
        name: pytest.approx(metrics["domains"]["demo"]["strict"][name])
        for name in ("f1", "precision", "recall", "pair_f1")
    }
    assert {*results_markdown(metrics).splitlines()} <= {*text.splitlines()}  # in another order: JSON's keys are sorted
    assert "| demo (synthetic) | demo | 160 | 40 | 40 | apache-2.0 |" in text
    assert "--config.student.adapter=adapter" in text and 'Bundler.load("adapter")' in text
    versions = json.loads((workdir / "config.json").read_text())["versions"]
    assert all(f"{package} {number}" in text for package, number in versions.items())


def edit(path, fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_peft_gives_the_same_logits_and_the_golden_outputs(finished, cache, monkeypatch):
    torch = pytest.importorskip("torch")
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    monkeypatch.setenv("KDJAX_CACHE", str(cache))
    torch.set_num_threads(1)
    adapter = finished[0] / "adapter"
    student = load_student("tiny-random", adapter=adapter)
    golden = json.loads((adapter / "golden.json").read_text())
    base = transformers.AutoModelForCausalLM.from_pretrained(student.files.folder, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, adapter).eval()
    ids = torch.tensor([golden["prompt_ids"]])
    with torch.no_grad():
        logits = model(ids).logits.numpy()
        greedy = model.generate(ids, max_new_tokens=len(golden["greedy_ids"]), do_sample=False, pad_token_id=2)
    np.testing.assert_allclose(np.asarray(student.logits(ids.numpy())), logits, atol=1e-4)
    first = golden["first_logits"]
    np.testing.assert_allclose(logits[0, -1][first["ids"]], first["values"], atol=1e-4)
    assert greedy[0, ids.shape[1] :].tolist() == golden["greedy_ids"]
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(adapter)
    assert tokenizer.encode(golden["prompt"], add_special_tokens=False) == golden["prompt_ids"]
