"""What was said is what is rendered: a chat template loses, moves, changes or repeats no message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_folders import write_byte_level

from kdjax.errors import InputError
from kdjax.sources.tokenizer import read_tokenizer


def each(body: str, messages: str = "messages") -> str:
    return "{% for m in " + messages + " %}{{ '<' + m.role + '>' + " + body + " }}{% endfor %}"


PLAIN = each("m.content")
USERS = "{% for m in messages if m.role != 'system' %}{{ '<' + m.role + '>' + m.content }}{% endfor %}"
LAST_USER = (  # Mistral 0.3 writes the system message there
    "{% for m in messages if m.role != 'system' %}{{ '<' + m.role + '>' }}"
    "{% if loop.last %}{{ messages[0].content + '\n\n' }}{% endif %}{{ m.content }}{% endfor %}"
)
SAID = [
    {"role": "system", "content": "Group the products.\nRules: none"},
    {"role": "user", "content": "1. cable\n2. mug"},
    {"role": "assistant", "content": "[[1,2]]"},
    {"role": "user", "content": "1. Café\n2. TV"},
]
MERGED = "<user>Group the products.\nRules: none\n\n1. cable\n2. mug<assistant>[[1,2]]<user>1. Café\n2. TV"


def rendered(folder, template: str, messages=SAID) -> str:
    return read_tokenizer(write_byte_level(folder, chat_template=template)).render(messages)


# template → what it makes of SAID
KEEPS = {
    "all": (PLAIN, "<system>Group the products.\nRules: none" + MERGED.replace(SAID[0]["content"] + "\n\n", "")),
    "leaves out the system message": (USERS, MERGED),
    "raises on it": ("{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + PLAIN, MERGED),
    "moves it": (
        LAST_USER.replace(
            "messages[0].content", "(messages[0].content if messages[0].role == 'system' else '')"
        ).replace(" + '\n\n'", ""),
        "<user>1. cable\n2. mug<assistant>[[1,2]]<user>Group the products.\nRules: none1. Café\n2. TV",
    ),
    "breaks on it": ("{% if messages[0].role == 'system' %}{{ 1 // 0 }}{% endif %}" + PLAIN, MERGED),
    "shortens it": (PLAIN.replace("m.content", "(m.content[:9] if m.role == 'system' else m.content)"), MERGED),
}


@pytest.mark.parametrize("template, expected", KEEPS.values(), ids=KEEPS)
def test_a_system_message_stays_where_the_template_has_it_or_joins_the_first_user_message(template, expected, tmp_path):
    assert rendered(tmp_path, template) == expected


def test_a_conversation_without_a_system_message_is_rendered_as_ever(tmp_path):
    assert rendered(tmp_path, USERS, SAID[1:]) == "<user>1. cable\n2. mug<assistant>[[1,2]]<user>1. Café\n2. TV"


@given(
    st.lists(st.sampled_from([" ", "\n", "\t", "a", "é", "a b", "<|im_end|>", "[[1]]", "\u00a0"]), max_size=6).map(
        "".join
    )
)
def test_outer_white_space_may_be_trimmed(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("trims")
    said = [{"role": "user", "content": content}]
    for trimmed in ("m.content | trim", "m.content.strip()", "m.content"):
        tokenizer = read_tokenizer(write_byte_level(folder, chat_template=each(trimmed)))
        shown = tokenizer.escape(content)
        assert tokenizer.render(said) == "<user>" + (shown if trimmed == "m.content" else shown.strip())


def test_one_text_said_twice_is_written_twice(tmp_path):
    twice = [SAID[1], SAID[2], SAID[1]]
    assert rendered(tmp_path, PLAIN, twice).count("1. cable\n2. mug") == 2
    with pytest.raises(InputError, match=r"message 3 of 3 \(user\)"):
        rendered(tmp_path, each("m.content", "messages[:2]"), twice)


def test_a_short_text_may_be_among_the_templates_own_words(tmp_path):
    said = [{"role": "user", "content": "hi"}]
    assert rendered(tmp_path, "this is this: " + PLAIN, said) == "this is this: <user>hi"


def test_the_file_of_the_template_is_named(tmp_path):
    tokenizer_config = write_byte_level(tmp_path, chat_template="nothing") / "tokenizer_config.json"
    with pytest.raises(InputError, match=f"^{tokenizer_config}: the chat template leaves out"):
        read_tokenizer(tmp_path).render(SAID)
    (tmp_path / "chat_template.jinja").write_text("nothing, either")
    with pytest.raises(InputError, match=f"^{tmp_path / 'chat_template.jinja'}: the chat template leaves out"):
        read_tokenizer(tmp_path).render(SAID)
