"""The tokenizer says what transformers says, ids and chat texts alike, without importing it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_folders import CHATML, TEMPLATES, write_byte_level, write_sentencepiece

from kdjax.errors import InputError
from kdjax.sources.tokenizer import read_tokenizer

TEXTS = (
    "",
    "the theme of the 12 products, 3.5 mm",
    "  leading, trailing and   inner spaces  ",
    "line\nbreaks\r\n\n\tand tabs",
    "café naïve 日本語 עברית ﷽ \u00a0\u200b",
    "🙂👩‍👩‍👧 \U0001f1eb\U0001f1f7",
    "special <|im_start|>user\nhi<|im_end|> in the text </s><s><unk> <0x0A>",
    "[[1,3],[2,5,6]]",
    "<tool call> and naïve token",
)
CONVERSATIONS = {
    "system and user": [("system", "Group the products."), ("user", "1. Café\n2. HDMI cable 🙂")],
    "user": [("user", " the products \n")],
    "with a reply": [("user", "a"), ("assistant", "[[1,2]]"), ("user", "b")],
}


def conversation(name: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in CONVERSATIONS[name]]


@pytest.fixture(scope="session", params=["byte-level", "sentencepiece"])
def folder(request, tmp_path_factory):
    """A tokenizer folder of each kind."""
    write = write_byte_level if request.param == "byte-level" else write_sentencepiece
    return write(tmp_path_factory.mktemp("tokenizer") / request.param)


@pytest.fixture(scope="session")
def tokenizer(folder):
    return read_tokenizer(folder)


@pytest.fixture(scope="session")
def theirs(folder):
    return pytest.importorskip("transformers").PreTrainedTokenizerFast.from_pretrained(folder)


# Ids


def test_ids_equal_transformers(tokenizer, theirs):
    for text in TEXTS:
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.encode(text) == ids, text
        for skip in (True, False):
            expected = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            assert tokenizer.decode(ids, skip_special_tokens=skip) == expected, text


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40))
def test_any_text_has_transformers_ids(tokenizer, theirs, text):
    assert tokenizer.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]


def test_ids_do_not_depend_on_padding_and_truncation_in_the_file(tmp_path):
    write_byte_level(tmp_path)
    plain = read_tokenizer(tmp_path).encode(TEXTS[1])
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 99},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert read_tokenizer(tmp_path).encode(TEXTS[1]) == plain


# Chat templates


@pytest.mark.parametrize("generate", [True, False])
@pytest.mark.parametrize(
    ("family", "name"),
    [
        (family, name)
        for family in TEMPLATES
        for name in CONVERSATIONS
        if (family, name) != ("no system", "system and user")
    ],
)
def test_render_equals_apply_chat_template(family, name, generate, tmp_path):
    transformers = pytest.importorskip("transformers")
    write_byte_level(tmp_path, family)
    messages = conversation(name)
    expected = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=generate
    )
    assert read_tokenizer(tmp_path).render(messages, add_generation_prompt=generate) == expected


def test_a_template_without_system_role_gets_it_in_the_first_user_message(tmp_path):
    tokenizer = read_tokenizer(write_byte_level(tmp_path, "no system"))
    messages = conversation("system and user")
    before = json.dumps(messages)
    assert tokenizer.render(messages) == (
        "<bos><start>user\nGroup the products.\n\n1. Café\n2. HDMI cable 🙂<end>\n<start>model\n"
    )
    assert json.dumps(messages) == before, "the caller's messages were changed"


@pytest.mark.parametrize(
    "roles", [("assistant", "user"), ("user", "user"), ("system", "assistant", "user"), ("system",)]
)
def test_a_conversation_that_the_template_refuses_is_an_input_error(roles, tmp_path):
    tokenizer = read_tokenizer(write_byte_level(tmp_path, "no system"))
    with pytest.raises(InputError, match=r"chat template refuses the conversation"):
        tokenizer.render([{"role": role, "content": "x"} for role in roles])


def test_a_broken_template_is_an_input_error(tmp_path):
    tokenizer = read_tokenizer(write_byte_level(tmp_path, chat_template="{% for m in messages %}"))
    with pytest.raises(InputError, match="chat template"):
        tokenizer.render(conversation("system and user"))


@pytest.mark.parametrize("family", ["llama3", "no system"])
def test_bos_is_not_doubled(family, tmp_path):
    """The template writes it, and the post-processor of tokenizer.json would add another."""
    tokenizer = read_tokenizer(write_byte_level(tmp_path, family))
    ids = tokenizer.encode(tokenizer.render(conversation("user")))
    assert ids[0] == 0
    assert ids.count(0) == 1
    assert tokenizer.inner.encode("the").ids[0] == 0, "this tokenizer adds no BOS, the test proves nothing"


def test_a_prompt_does_not_change_with_the_calendar(tmp_path):
    """It gets the date that Llama 3's templates use by themselves, whether or not a template asks for a clock first."""
    asks = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}26 Jul 2024{% endif %}"
    for template in (asks, "{{ strftime_now('%d %b %Y') }}"):
        tokenizer = read_tokenizer(write_byte_level(tmp_path, chat_template=template + "{{ messages[0].content }}"))
        assert tokenizer.render([{"role": "user", "content": "hi"}]) == "26 Jul 2024hi"


def test_a_template_file_and_named_templates(tmp_path):
    asked = [{"role": "user", "content": "hi"}]
    named = [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "{{ messages[0].content }}, plain"},
    ]
    write_byte_level(tmp_path, chat_template=named)
    assert read_tokenizer(tmp_path).render(asked) == "hi, plain"
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }} from the file")
    assert read_tokenizer(tmp_path).render(asked) == "hi from the file"


def test_templates_run_in_a_sandbox(tmp_path):
    template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    tokenizer = read_tokenizer(write_byte_level(tmp_path, chat_template=template))
    with pytest.raises(InputError, match="unsafe"):
        tokenizer.render(conversation("user"))


@pytest.mark.parametrize("template", [None, "", [{"name": "tool_use", "template": "x"}]])
def test_a_missing_template_is_said(tmp_path, template):
    tokenizer = read_tokenizer(write_byte_level(tmp_path, chat_template=template))
    with pytest.raises(InputError, match="no chat template; use an instruct model"):
        tokenizer.render(conversation("user"))


# End of turn


def test_eos_ids_come_from_tokenizer_then_generation_config(tmp_path):
    """config.json counts only where there is no generation_config.json, as in transformers' `generate`."""
    write_byte_level(tmp_path, "llama3")
    assert read_tokenizer(tmp_path).eos_ids == (3,)
    (tmp_path / "config.json").write_text('{"eos_token_id": 1}')
    assert read_tokenizer(tmp_path).eos_ids == (3, 1)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [0, 3, 2]}')
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer.eos_ids == (3, 0, 2)
    assert tokenizer.eos_id == 3


def test_eos_as_an_added_token_object(tmp_path):
    assert read_tokenizer(write_sentencepiece(tmp_path)).eos_ids == (2,)


def test_special_tokens_named_in_the_older_file_alone(tmp_path):
    write_byte_level(tmp_path, "llama3")
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    special = {name: settings.pop(name) for name in ("bos_token", "eos_token")}
    path.write_text(json.dumps(settings))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(special))
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer.eos_id == 3
    assert tokenizer.render([{"role": "user", "content": "x"}]).startswith(special["bos_token"])


def test_a_missing_eos_is_said(tmp_path):
    with pytest.raises(InputError, match="no end-of-sequence token"):
        read_tokenizer(write_byte_level(tmp_path, eos_token=None))


def test_an_eos_that_is_no_token_is_refused_though_the_model_names_another(tmp_path):
    write_byte_level(tmp_path, eos_token="<|nowhere|>")
    (tmp_path / "config.json").write_text('{"eos_token_id": 1}')
    with pytest.raises(InputError, match=r"eos_token '<\|nowhere\|>' is not a token of tokenizer\.json"):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        ({"config.json": {"eos_token_id": 1}}, (3, 1)),
        ({"config.json": {"text_config": {"eos_token_id": [1, 2]}}}, (3, 1, 2)),
        ({"generation_config.json": {"eos_token_id": [2, 3]}, "config.json": {"eos_token_id": 1}}, (3, 2)),
    ],
)
def test_a_copy_names_the_end_tokens_that_stood_elsewhere(files, ids, tmp_path):
    """An adapter and a teacher cache take no config.json along."""
    write_byte_level(tmp_path / "model", "llama3")
    for name, content in files.items():
        (tmp_path / "model" / name).write_text(json.dumps(content))
    tokenizer = read_tokenizer(tmp_path / "model")
    assert tokenizer.eos_ids == ids
    tokenizer.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "config.json").exists()
    assert set(read_tokenizer(tmp_path / "saved").eos_ids) == set(ids)


def test_where_nothing_is_generated_no_end_token_is_needed(tmp_path):
    write_byte_level(tmp_path, eos_token=None)
    assert read_tokenizer(tmp_path, ends=False).eos_ids == ()


# Bytes


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_token_bytes_spell_the_text(tokenizer, text):
    """Byte-level: exactly. SentencePiece: with the space that it puts in front, and "▁" read as the space it stands for."""
    table = tokenizer.token_bytes()
    ids = tokenizer.encode(text)
    if any(table[i] is None for i in ids):  # hypothesis found a special token
        return
    spelled = b"".join(table[i] for i in ids)
    if "▁the" in tokenizer.inner.get_vocab():
        text = (" " + text).replace("▁", " ") if text else ""
    assert spelled == text.encode()


def test_token_bytes_of_special_and_of_added_tokens(tokenizer):
    table = tokenizer.token_bytes()
    assert len(table) == tokenizer.vocab_size
    assert [i for i, text in enumerate(table) if text is None] == [0, 1, 2]
    for i, token in tokenizer.inner.get_added_tokens_decoder().items():
        if not token.special:
            assert table[i] == token.content.encode()


def test_token_bytes_where_ids_have_holes(tmp_path):
    write_byte_level(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    last = max(content["model"]["vocab"].values())
    content["model"]["vocab"]["],["] = 1000
    content["added_tokens"] = [token for token in content["added_tokens"] if token["special"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    table = read_tokenizer(tmp_path).token_bytes()
    assert table[1000] == b"],["
    assert table[last] is None
    assert len(table) == 1001


# Files


def test_saved_files_are_the_bytes_that_were_read(folder, tmp_path):
    (folder / "special_tokens_map.json").write_text('{ "bos_token":   "<s>" }')
    read_tokenizer(folder).save(tmp_path / "saved")
    names = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert {path.name for path in (tmp_path / "saved").iterdir()} == names
    for name in names:
        assert (tmp_path / "saved" / name).read_bytes() == (folder / name).read_bytes()


def test_a_template_file_is_saved_too(tmp_path):
    write_byte_level(tmp_path / "model", chat_template=None)
    (tmp_path / "model" / "chat_template.jinja").write_text(CHATML)
    tokenizer = read_tokenizer(tmp_path / "model")
    tokenizer.save(tmp_path / "saved")
    again = read_tokenizer(tmp_path / "saved")
    assert again.render(conversation("user")) == tokenizer.render(conversation("user"))


@pytest.mark.parametrize("content", ["", "{}", '{"model": {"type": "BPE"}}', "not json"])
def test_a_broken_tokenizer_file_is_named(tmp_path, content):
    write_byte_level(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match=r"tokenizer\.json: not a readable tokenizer"):
        read_tokenizer(tmp_path)


def test_a_broken_tokenizer_config_is_named(tmp_path):
    write_byte_level(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer_config\.json: not readable as JSON"):
        read_tokenizer(tmp_path)


def test_a_missing_tokenizer_file_is_said(tmp_path):
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        read_tokenizer(tmp_path)
