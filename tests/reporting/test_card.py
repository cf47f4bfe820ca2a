"""The model card: a head that the hub can read, the numbers of metrics.json, and what differs between adapters."""

import pytest
import yaml

from kdjax.reporting import results_markdown, write_json, write_model_card

RUN = {
    "config": {
        "seed": 3,
        "train": {"batch_size": 16, "learning_rate": 5e-4},
        "knowledge": {"formats": ["rules"]},
        "teacher": {"kind": "hf", "source": "org/teacher"},
    },
    "hash": "0123abcd",
    "versions": {"kdjax": "0.1.0", "jax": "0.10.2"},
    "devices": ["cpu cpu", "cpu cpu"],
}
DEMO = {"source": "demo", "license": "apache-2.0", "synthetic": True}
SHOP = {"source": "jsonl", "license": "", "synthetic": False}
SIZES = {"train": 160, "validation": 40, "test": 30}
BASE = {"source": "org/base@main", "quantization": None, "hub_name": "org/base", "license": "apache-2.0"}
LORA = {
    "r": 16,
    "lora_alpha": 32.0,
    "use_dora": False,
    "use_rslora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "target_modules": ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"],
}


@pytest.fixture
def card(tmp_path, metrics):
    """card(…) → the text of a card: changes of kdjax.json, of its base, of adapter_config.json, and of each domain's facts."""

    def write(described=(), base=(), lora=(), data=(DEMO, DEMO), notes=()):
        products = {"fields": ["title", "categories"], "title_words": 8}
        answer = {"answer": "text", "pair_layers": 6, "thoughts_first": False}
        trained = {"base": BASE | dict(base), "products": products, **answer, **dict(described)}
        folder = tmp_path / "adapter"
        write_json(folder / "kdjax.json", trained)
        write_json(folder / "adapter_config.json", LORA | dict(lora))
        facts = dict(zip(("electronic", "food"), ({**one, "sessions": SIZES} for one in data), strict=True))
        write_model_card(folder, 'run "7": x', RUN, metrics, facts, notes)
        return (folder / "README.md").read_text()

    return write


def head(text):
    """The YAML of a card, as the hub reads it: between the first two lines of dashes."""
    first, content, _ = text.split("---\n", 2)
    assert first == ""
    return yaml.safe_load(content)


def test_the_head_is_what_the_hub_expects(card):
    found = head(card())
    index = found.pop("model-index")
    assert found == {
        "base_model": "org/base",
        "library_name": "peft",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["kdjax", "bundle-generation", "lora", "synthetic-data"],
        "metrics": ["f1", "precision", "recall"],
    }
    assert [(entry["name"], len(entry["results"])) for entry in index] == [('run "7": x', 2)]


def test_its_numbers_are_those_of_metrics_json(card, metrics):
    metrics["domains"]["food"]["strict"]["pair_f1"] = None  # no pairs: null in the file, no metric for the hub
    text = card()
    results = head(text)["model-index"][0]["results"]
    for result, (domain, expected) in zip(results, metrics["domains"].items(), strict=True):
        assert result["dataset"] == {"name": f"{domain} (synthetic)", "type": "demo", "split": "test"}
        found = {metric["type"]: metric["value"] for metric in result["metrics"]}
        names = ("f1", "precision", "recall", "pair_f1")
        assert found == {name: expected["strict"][name] for name in names if expected["strict"][name] is not None}
    assert results_markdown(metrics).rstrip() in text  # intervals and floors included
    assert "0.450 [0.400, 0.500]" in text and "random pair" in text


@pytest.mark.parametrize(
    "base, data, expected",
    [
        ("apache-2.0", (DEMO, DEMO), "apache-2.0"),
        ("", (DEMO, DEMO), "other"),
        ("llama3.2", (DEMO, DEMO), "other"),
        ("apache-2.0", (DEMO, SHOP), "other"),
        ("", (SHOP, SHOP), "other"),
    ],
)
def test_a_license_is_claimed_only_where_base_and_data_have_the_same(card, base, data, expected):
    text = card(base={"license": base}, data=data)
    assert head(text)["license"] == expected
    assert (f"base model's license is {base}." in text) is bool(base)
    assert ("base model's license see its own page" in text) is not bool(base)
    assert text.count("state no license") == sum(not one["license"] for one in data)


def test_a_base_without_a_hub_name_is_not_named_in_the_head(card):
    text = card(base={"hub_name": "", "source": "/models/mine"})
    assert "base_model" not in head(text) and "adapter of `/models/mine`" in text


def test_a_student_that_judges_pairs_has_no_pipeline_and_no_server(card):
    text = card(described={"answer": "pairs"})
    assert "pipeline_tag" not in head(text)
    assert "not trained to write" in text and "after layer 6" in text
    assert "vllm" not in text and "PeftModel" not in text and "configs/export.py" not in text


@pytest.mark.parametrize(
    "lora, expected",
    [
        ({}, "--max-lora-rank 16 "),
        ({"r": 20}, "--max-lora-rank 32 "),
        ({"use_dora": True}, "vLLM reads neither DoRA"),
        ({"rank_pattern": {"q_proj": 2}}, "vLLM reads neither DoRA"),
        ({"alpha_pattern": {"q_proj": 2}}, "vLLM reads neither DoRA"),
    ],
)
def test_vllm_is_told_the_next_rank_that_it_takes(card, lora, expected):
    assert expected in card(lora=lora)


@pytest.mark.parametrize(
    "lora, expected",
    [
        ({}, ["| adapter | LoRA, rank 16, alpha 32 |", "| scale of the update | alpha / rank |"]),
        ({"use_rslora": True}, ["alpha / √rank"]),
        ({"use_dora": True, "rank_pattern": {"q_proj": 2}}, ["DoRA, rank 16", "| rank pattern | {'q_proj': 2} |"]),
    ],
)
def test_the_training_is_told(card, lora, expected):
    text = card(lora=lora)
    for row in (*expected, "| targets | q_proj |", "| teacher | org/teacher |", "| seed | 3 |", "2 × cpu cpu"):
        assert row in text


def test_the_example_has_what_the_products_were_told_with(card):
    text = card()
    code = text.split("```python\n")[1].split("```")[0]
    assert {"from kdjax import Bundler", '    {"title": "Garden hose", "categories": [["Garden"]]},'} <= {
        *code.splitlines()
    }
    compile(code, "card", "exec")
    text = card(described={"products": {"fields": ["title"], "title_words": 0}})
    assert '{"title": "Garden hose"}' in text and "titles cut" not in text


def test_notes_and_synthetic_data_are_near_the_numbers(card):
    text = card(notes=["The teacher is a stand-in."])
    assert "* The teacher is a stand-in.\n" in text and "electronic, food are synthetic" in text
    text = card(data=(SHOP, SHOP))
    assert "Read with care" not in text and "synthetic" not in text and head(text)["tags"][-1] == "lora"


def test_the_same_run_gives_the_same_bytes(card):
    assert card() == card()


@pytest.mark.parametrize("answer", ["text", "pairs"])
def test_nothing_of_the_template_is_left(card, answer):
    text = card(described={"answer": answer})
    assert [mark for mark in ("{%", "%}", "{{", "}}", "None", "\n\n\n") if mark in text] == []
