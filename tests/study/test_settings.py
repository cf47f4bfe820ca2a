"""The config is judged as a whole before anything is read."""

import pytest

from configs import sft_text
from configs.base import base, cell, study
from configs.sft_text import writes
from kdjax.data import load_domain
from kdjax.errors import InputError
from kdjax.knowledge import RuleCandidate, knowledge_text, merge_rules
from kdjax.prompting import prompt_example
from kdjax.sources import load_tokenizer, resolve
from kdjax.study.settings import check, config_hash, default_workdir, differences, lora_config


def test_the_default_is_valid():
    check(base("x"))


def test_the_default_is_the_recipe():
    """Section 9 of docs/results/recipe.md, which the table of README is of; changed, both are to be measured anew."""
    config = base("x")
    student, train = config.student, config.train
    assert (student.answer, student.pair_layers, config.lora.r, config.lora.lora_alpha) == ("pairs", 6, 16, 32.0)
    assert (train.learning_rate, train.epochs, train.batch_size, train.shuffle_products) == (5e-4, 2, 16, True)
    assert (config.prompting.fields, config.prompting.title_words) == (("title", "categories"), 8)
    assert config.eval.orders == 4


@pytest.mark.parametrize(
    "field, value, names",
    [
        ("parallel", "shmap", "pmap"),
        ("mesh.tensor", 2, "only with config.parallel='mesh'"),
        ("mesh.fsdp", 0, "at least 1"),
        ("teacher.kind", "gpt", "annotations"),
        ("teacher.kind", "http", "teacher.url=''.*https://HOST/v1"),
        ("teacher.url", "https://host/v1?key=secret", "teacher.url holds more than a host and a path"),
        ("teacher.key_variable", "sk-secret", "not the name of an environment variable"),
        ("knowledge.strategy", "best", "diversity"),
        ("knowledge.formats", ("rule",), "rules"),
        ("knowledge.formats", ("rules", "rules"), "twice"),
        ("eval.constraint", "xml", "items"),
        ("student.answer", "json", "pairs"),
        ("student.pair_layers", 0, "at least 1"),
        ("eval.orders", 2, "only with student.answer='pairs'"),
        ("prompting.fields", ("title", "price"), "category"),
        ("prompting.fields", ("category",), "begins with its title"),
        ("prompting.title_words", -1, "at least 0"),
        ("data.domains", (), "empty"),
        ("train.batch_size", 0, "at least 1"),
        ("train.max_steps", -2, "at least -1"),
        ("train.max_grad_norm", 0.0, "above 0"),
        ("student.dtype", "float16", "bfloat16"),
        ("student.quantization", "int3", "None"),
        ("lora.r", 0, "at least 1"),
        ("knowledge.reflections", -1, "at least 0"),
        ("train.learning_rate", float("nan"), "at least 0"),
        ("lora.lora_alpha", float("nan"), "finite"),
        ("lora.target_modules", "q_prj", "q_proj"),
        ("lora.rank_pattern", ("q_proj", 8), "write pairs"),
        ("lora.alpha_pattern", (("(q_proj", 8),), "not a regular expression"),
    ],
)
def test_a_wrong_value_names_its_field_and_what_is_valid(field, value, names):
    config = writes(base("x"))
    config.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=names) as error:
        check(config)
    assert field.split(".")[-1] in str(error.value) or field in ("teacher.kind", "mesh.tensor")
    assert "secret" not in str(error.value)


def test_another_config_is_another_hash_and_another_folder():
    one, other = base("x"), base("x")
    assert config_hash(one) == config_hash(other)
    other.train.epochs += 1
    assert config_hash(one) != config_hash(other)
    assert default_workdir(one).startswith("runs/x-") and default_workdir(one) != default_workdir(other)


def test_differences_name_fields_and_both_values():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == ["a.c: 2 → 3", "d: None → 4"]


def test_target_modules_may_be_written_with_commas():
    config = base("x")
    config.lora.target_modules = "q_proj, v_proj"
    config.lora.rank_pattern = (("q_proj", 8),)
    config.lora.layers_to_transform = (0,)
    lora = lora_config(config)
    assert (lora.target_modules, lora.rank_pattern) == (("q_proj", "v_proj"), {"q_proj": 8})
    assert lora.plans(2)["q_proj"].ranks == (8, 0)


def test_a_student_that_judges_pairs_is_adapted_where_it_computes():
    config = base("x")
    config.student.update(answer="pairs", pair_layers=3)
    assert lora_config(config).layers_to_transform == (0, 1, 2)
    config.lora.layers_to_transform = (1,)
    assert lora_config(config).layers_to_transform == (1,)
    check(config)
    for field, value, message in (
        ("knowledge.formats", ("rules", "thoughts"), "a thought is written"),
        ("lora.layers_to_transform", (2, 3), "layer 3 is behind"),
    ):
        wrong = config.copy_and_resolve_references()
        wrong.update_from_flattened_dict({field: value})
        with pytest.raises(InputError, match=message):
            check(wrong)


@pytest.mark.real
@pytest.mark.parametrize(
    "rule", ["Cables go with the device.", "Look.", "A bundle serves one purpose, say a party or a trip."]
)
def test_no_prompt_of_the_demo_exceeds_160_tokens_whatever_rules_there_are(rule):
    config = sft_text.get_config()
    tokenizer = load_tokenizer(resolve(config.student.source))
    domain = load_domain("demo", "", "demo")
    rules = [RuleCandidate(f"{rule} Number {word}.", "s", ()) for word in ("one", "black", "tent", "six", "oak", "zoo")]
    cards = merge_rules(
        rules,
        "demo",
        limit=config.knowledge.limit,
        max_tokens=config.knowledge.max_tokens,
        count_tokens=lambda text: len(tokenizer.encode(text)),
        log=print,
    )
    sessions = [session for split in domain.splits.values() for session in split]
    prompts = [prompt_example(tokenizer, "demo", session, knowledge_text({"rules": cards})) for session in sessions]
    assert cards and max(len(prompt) for prompt in prompts) <= 160


@pytest.mark.parametrize("written", ["['q_proj','v_proj']", '["q_proj", "v_proj"]', "[ 'q_proj' , 'v_proj', ]"])
def test_target_modules_may_be_written_as_peft_writes_them(written):
    config = base("x")
    config.lora.update(target_modules=written, exclude_modules="['o_proj']")
    assert lora_config(config).target_modules == ("q_proj", "v_proj")
    assert lora_config(config).exclude_modules == ("o_proj",)


def test_a_regular_expression_with_brackets_stays_one():
    config = base("x")
    config.lora.target_modules = r"[a-z.\d]*\.[qv]_proj"
    assert lora_config(config).target_modules == r"[a-z.\d]*\.[qv]_proj"


def test_a_studys_folder_does_not_depend_on_its_grid():
    one, other = study("x", "?", (cell("a"),)), study("x", "?", (cell("b"),))
    other.study.update(dry_run=True, seeds=(4,))
    assert default_workdir(one) == default_workdir(other)
    other.train.epochs += 1
    assert default_workdir(one) != default_workdir(other)
