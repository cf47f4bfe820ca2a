"""Chat templates that do not say what they are given: the error names the template's file and the message."""

import json

import pytest
from listed import each

from kdjax.data import Session
from kdjax.prompting import Demonstration, prompt_example
from kdjax.sources import Tokenizer
from kdjax.sources.tiny import write_tiny_model
from kdjax.sources.tokenizer import read_tokenizer
from kdjax.teacher import Call
from kdjax.teacher.calls import make_request

SESSION = Session("s", ("a", "b"), ("Espresso Machine", "Coffee  Grinder"), ((), ()), bundles=((0, 1),), intents=("",))
OTHER = Session("o", ("c", "d"), ("HDMI Cable", "TV & Radio"), ((), ()), bundles=((0, 1),), intents=("",))
ALL = "{% for m in messages %}<{{ m.role }}>BODY{% endfor %}"
MACHINE = "'1. Espresso Machine\\n2. Coffee  Grinder'"
FIRST = "message 1 of 3 (user): 'Group the products that belong together"

# what is wrong: (the template, what the error says)
TEMPLATES = {
    "says nothing": ("Hello!", FIRST),
    "leaves out every user": ("{% for m in messages if m.role != 'user' %}{{ m.content }}{% endfor %}", FIRST),
    "leaves out the assistant": (
        "{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}",
        "message 2 of 3 (assistant): '[[1,2]]'",
    ),
    "keeps the last message alone": ("{{ messages[-1].content }}", FIRST),
    "keeps the first message alone": ("{{ messages[0].content }}", "message 2 of 3 (assistant)"),
    "forgets the last message": ("{% for m in messages[:-1] %}{{ m.content }}{% endfor %}", "message 3 of 3 (user)"),
    "turns the order round": ("{% for m in messages | reverse %}{{ m.content }}{% endfor %}", "(assistant): '[[1,2]]'"),
    "writes in capitals": (ALL.replace("BODY", "{{ m.content | upper }}"), FIRST),
    "writes in small letters": (ALL.replace("BODY", "{{ m.content | lower }}"), FIRST),
    "joins lines": (ALL.replace("BODY", "{{ m.content | replace('\n', ' ') }}"), "message 1 of 3 (user)"),
    "joins spaces": (
        ALL.replace("BODY", "{{ m.content.replace('  ', ' ') }}"),
        f"message 3 of 3 (user): {MACHINE}",
    ),
    "cuts long messages": (ALL.replace("BODY", "{{ m.content[:40] }}"), FIRST),
    "truncates": (ALL.replace("BODY", "{{ m.content | truncate(50) }}"), FIRST),
    "escapes as for a web page": (ALL.replace("BODY", "{{ m.content | e }}"), FIRST),
    "strips a letter": (ALL.replace("BODY", "{{ m.content.strip('r') }}"), f"message 3 of 3 (user): {MACHINE}"),
    "takes brackets out of answers": (ALL.replace("BODY", "{{ m.content.strip('[]') }}"), "(assistant): '[[1,2]]'"),
    "writes the question twice": (
        "{% for m in messages + messages[-1:] %}{{ m.content }}{% endfor %}",
        "repeats a message",
        MACHINE,
    ),
    "writes everything twice": ("{% for m in messages + messages %}{{ m.content }}{% endfor %}", "repeats a message"),
}


def tokenizer(tmp_path, template: str) -> Tokenizer:
    write_tiny_model(tmp_path / "model")
    path = tmp_path / "model" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    return read_tokenizer(path.parent)


@each("template", TEMPLATES)
def test_a_template_that_changes_a_prompt(template, words, tmp_path, refused):
    asked = tokenizer(tmp_path, template)
    file = str(tmp_path / "model" / "tokenizer_config.json")
    refused(lambda: prompt_example(asked, "d", SESSION, demonstrations=[Demonstration(OTHER)]), file, *words)


@pytest.mark.parametrize("template, words", [(case[0], case[1:]) for case in TEMPLATES.values()], ids=TEMPLATES)
def test_a_template_that_changes_a_teachers_call(template, words, tmp_path, refused):
    conversation = [
        ("user", "Group the products that belong together, by their use: Cables & TV\n…"),
        ("assistant", "[[1,2]]"),
    ]
    call = Call((*conversation, ("user", "1. Espresso Machine\n2. Coffee  Grinder")), 8)
    asked = tokenizer(tmp_path, template)
    refused(lambda: make_request({}, call, asked), str(tmp_path / "model"), *words)
