"""One field of a tokenizer's files is changed at a time: what comes out is what AutoTokenizer makes of it, or an error
that names the field. A silent difference fails."""

import json
from pathlib import Path

import pytest
from tokenizer_folders import CHATML, write_byte_level, write_sentencepiece

from kdjax.errors import InputError
from kdjax.sources.tokenizer import read_tokenizer
from kdjax.sources.tokenizer_classes import AS_FILE, OVERRIDDEN, REGISTERED, class_name

TEXTS = (
    "the <|turn|>x<|im_end|>\nthe",
    "  two  spaces, 12 of  345 and 3.5 mm",
    "the<|im_start|>the <|im_end|> the</s>the <s> the",
    " lead, café NAÏVE naïve token e\u0301 日本語 🙂",
    "the\nline\n\n  break\t<tool call>the THE",
    "",
)
MESSAGES = [{"role": "system", "content": "Group. "}, {"role": "user", "content": "12  products é"}]
PLAIN = {"special": True, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False}
NEXT = {write_byte_level: 267, write_sentencepiece: 304}  # the next free id
CONFIG, JSON, MAP, ADDED = "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", "added_tokens.json"
SAID = "{% for m in messages %}|{{ m.content }}{% endfor %}"  # a template must print what it is given
GENERATION = (
    "{% for m in messages %}{% if m.role == 'user' %}{% set x = 1 %}{% generation %}{% set x = 2 %}{{ m.content }}"
    "{% endgeneration %}{{ x }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
NAMES = (
    "{{ bos_token }}|{{ eos_token }}|{{ sep_token }}|{{ cls_token }}|{{ mask_token }}|{{ image_token }}|{{ pad_token is defined }}"
    + SAID
)


def token(text: str, **flags) -> dict:
    return {"content": text, **PLAIN, **flags}


def stored(i: int, **flags):
    """tokenizer.json with other flags of an added token."""
    return lambda content: content["added_tokens"][i].update(flags)


def lowercase(content: dict) -> None:
    content["normalizer"] = {"type": "Lowercase"}


def padding(content: dict) -> None:
    fixed = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
    content["padding"] = fixed | {"pad_type_id": 0, "pad_token": "<pad>"}


def field(name: str, **fields) -> dict:
    return {name: fields}


def config(**fields) -> dict:
    return {CONFIG: fields}


def of_class(name: str | None, **fields) -> dict:
    return {CONFIG: {"tokenizer_class": name} | fields}


def of_type(model_type: str, named: str | None, **fields) -> dict:
    return {CONFIG: {"tokenizer_class": named}, "config.json": {"model_type": model_type} | fields}


def each_class(*names: str, **fields) -> dict[str, dict]:
    return {f"{name} {fields or ''}": of_class(name, **fields) for name in names}


TURN, N = "<|turn|>", NEXT[write_byte_level]
# what is changed: file → its fields (... takes one away; a function edits the JSON; a text is the file itself)
BYTE_LEVEL = {
    "nothing": {},
    "a token in added_tokens_decoder": config(added_tokens_decoder={str(N): token(TURN)}),
    "a token that is not special": config(added_tokens_decoder={str(N): token(TURN, special=False)}),
    "two tokens, the later id first": config(added_tokens_decoder={str(N + 1): token("<b>"), str(N): token("<a>")}),
    "one that lacks most": config(added_tokens_decoder={"2": token("<|im_end|>")}),
    "nothing in added_tokens_decoder": config(added_tokens_decoder={}),
    "an ordinary word becomes a token": config(added_tokens_decoder={"261": token("Ġthe")}),
    "lstrip": config(added_tokens_decoder={"2": token("<|im_end|>", lstrip=True)}),
    "rstrip": config(added_tokens_decoder={"2": token("<|im_end|>", rstrip=True)}),
    "single_word": config(added_tokens_decoder={"1": token("<|im_start|>", single_word=True)}),
    "normalized": config(added_tokens_decoder={"2": token("<|im_end|>", normalized=True)}),
    "named, but said not to be special": config(added_tokens_decoder={"2": token("<|im_end|>", special=False)}),
    "lstrip in tokenizer.json": {JSON: stored(2, lstrip=True)},
    "rstrip in tokenizer.json": {JSON: stored(2, rstrip=True)},
    "single_word in tokenizer.json": {JSON: stored(3, single_word=True)},
    "special in tokenizer.json": {JSON: stored(3, special=True)},
    "not special in tokenizer.json": {JSON: stored(1, special=False)},
    "an end not special in tokenizer.json": {JSON: stored(2, special=False)},
    "a token taken out of tokenizer.json": {JSON: lambda content: content["added_tokens"].pop(1)},
    "ignore_merges in tokenizer.json": {JSON: lambda content: content["model"].update(ignore_merges=True)},
    "a normalizer in tokenizer.json": {JSON: lowercase},
    "an old list of special tokens": config(additional_special_tokens=[TURN]),
    "an old list of objects": config(additional_special_tokens=[token(TURN, rstrip=True) | {"__type": "AddedToken"}]),
    "a new list of special tokens": config(extra_special_tokens=[TURN, "<b>"]),
    "both lists": config(extra_special_tokens=["<b>"], additional_special_tokens=[TURN]),
    "an empty new list": config(extra_special_tokens=[], additional_special_tokens=[TURN]),
    "special tokens by name": config(extra_special_tokens={"image_token": TURN}, chat_template=NAMES),
    "a named token of its own": config(image_token=TURN, chat_template=NAMES),
    "a pad_token that is new": config(pad_token="<pad>", chat_template=NAMES),
    "five names": config(sep_token="[[", cls_token="the", mask_token="<tool call>", chat_template=NAMES),
    "an end with flags": config(eos_token=token("<|im_end|>", rstrip=True) | {"__type": "AddedToken"}),
    "a start that is a word": config(bos_token="the", chat_template=NAMES),
    "no start": config(bos_token=None, chat_template=NAMES),
    "added_tokens.json": field(ADDED, **{TURN: N}),
    "added_tokens.json, where a normalizer changes its text": field(ADDED, **{"<|Turn|>": N}) | {JSON: lowercase},
    "added_tokens.json, special and with a normalizer": field(ADDED, **{"<|Turn|>": N})
    | {JSON: lowercase}
    | config(additional_special_tokens=["<|Turn|>"]),
    "special_tokens_map.json, where a normalizer changes its text": field(MAP, pad_token={"content": "<|Turn|>"})
    | {JSON: lowercase},
    "GPT-2's padding of tokenizer.json": {**of_class("GPT2Tokenizer"), JSON: padding},
    "the padding of tokenizer.json": {JSON: padding},
    "added_tokens.json, special by its list": field(ADDED, **{TURN: N}) | config(additional_special_tokens=[TURN]),
    "added_tokens.json, passed over": field(ADDED, **{TURN: N})
    | config(added_tokens_decoder={"2": token("<|im_end|>")}),
    "special_tokens_map.json": field(MAP, eos_token="<|im_start|>"),
    "special_tokens_map.json with flags": field(MAP, eos_token=token("<|im_end|>", rstrip=True)),
    "special_tokens_map.json, a list": field(MAP, additional_special_tokens=[TURN]),
    "special_tokens_map.json, a new list": field(MAP, extra_special_tokens=[TURN])
    | config(extra_special_tokens=["<b>"]),
    "special_tokens_map.json, two lists": field(MAP, additional_special_tokens=[TURN])
    | config(extra_special_tokens=["<b>"]),
    "special_tokens_map.json, an empty list": field(MAP, additional_special_tokens=[TURN])
    | config(extra_special_tokens=[]),
    "special_tokens_map.json, names": field(MAP, extra_special_tokens={"image_token": TURN})
    | config(extra_special_tokens=["<b>"], chat_template=NAMES),
    "names, and a list in special_tokens_map.json": field(MAP, extra_special_tokens=[TURN])
    | config(extra_special_tokens={"image_token": "<b>"}, chat_template=NAMES),
    "names, and an old list in special_tokens_map.json": field(MAP, additional_special_tokens=[TURN])
    | config(extra_special_tokens={"image_token": "<b>"}, chat_template=NAMES),
    "an old list in both": field(MAP, additional_special_tokens=[TURN]) | config(additional_special_tokens=["<b>"]),
    "auto_map of other things": config(auto_map={"AutoConfig": "x.X"}),
    "special_tokens_map.json, passed over": field(MAP, eos_token="<|im_start|>", additional_special_tokens=[TURN])
    | config(added_tokens_decoder={"2": token("<|im_end|>")}),
    "special_tokens_map.json, a name": field(MAP, image_token=TURN) | config(chat_template=NAMES),
    "a prefix that its class does not read": config(add_prefix_space=True),
    "do_lower_case": config(do_lower_case=True, strip_accents=True),
    "add_bos_token and add_eos_token": config(add_bos_token=True, add_eos_token=True),
    "clean_up_tokenization_spaces": config(clean_up_tokenization_spaces=True),
    "split_special_tokens": config(split_special_tokens=True),
    "auto_map": config(auto_map={"AutoTokenizer": ["x.X", None]}),
    "fix_mistral_regex": config(fix_mistral_regex=True),
    "an end that is new": config(eos_token=TURN),
    "an id that is not the next": config(added_tokens_decoder={"999": token(TURN)}),
    "added_tokens.json, not the next id": field(ADDED, **{TURN: 999}),
    **each_class("Qwen2Tokenizer", "Qwen2TokenizerFast", "GPT2Tokenizer", "GPTNeoXTokenizerFast", "Qwen3_5Tokenizer"),
    **each_class("Qwen2Tokenizer", "GPT2TokenizerFast", "GPTNeoXTokenizer", add_prefix_space=True),
    **each_class("Qwen2Tokenizer", "GPT2Tokenizer", eos_token=..., bos_token=...),
    "no end": config(eos_token=None),
    "no end of Qwen2's": of_class("Qwen2Tokenizer", eos_token=None),
    **each_class("Qwen2Tokenizer", "GPT2Tokenizer", "Qwen3_5Tokenizer", pad_token=None),
    **each_class("LlamaTokenizerFast", "BloomTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend"),
    "no class": of_class(None),
    "Qwen2's flags": of_class("Qwen2Tokenizer", added_tokens_decoder={"2": token("<|im_end|>", rstrip=True)}),
    "Qwen2's flags of other tokens": of_class(
        "Qwen2Tokenizer", added_tokens_decoder={"1": token("<|im_start|>", rstrip=True)}
    ),
    "Qwen2's extra tokens": of_class("Qwen2Tokenizer", extra_special_tokens=["<|im_start|>", TURN]),
    "GPT-2's flags": of_class("GPT2Tokenizer", added_tokens_decoder={"2": token("<|im_end|>", rstrip=True)}),
    "GPT-2's digits": {**of_class("GPT2Tokenizer"), JSON: lambda content: content.update(pre_tokenizer=DIGITS)},
    "Qwen2's digits": {**of_class("Qwen2Tokenizer"), JSON: lambda content: content.update(pre_tokenizer=DIGITS)},
    "its own digits": {JSON: lambda content: content.update(pre_tokenizer=DIGITS)},
    "qwen2 with Llama's class": of_type("qwen2", "LlamaTokenizerFast"),
    "qwen2 with no class": of_type("qwen2", None),
    "qwen3 with Qwen2's class": of_type("qwen3", "Qwen2Tokenizer"),
    "qwen3 with no class of its own": of_type("qwen3", "PreTrainedTokenizerFast"),
    "llama with GPT-2's class": of_type("llama", "GPT2Tokenizer"),
    "llama with Llama's class": of_type("llama", "LlamaTokenizer"),
    "mistral with GPT-2's class": of_type("mistral", "GPT2Tokenizer"),
    "granite with GPT-2's class": of_type("granite", "GPT2Tokenizer"),
    "llama with the class in config.json": of_type("llama", None, tokenizer_class="GPT2Tokenizer"),
    "{% generation %}": config(chat_template=GENERATION),
    "a template by name": config(chat_template={"default": CHATML, "tool_use": "tools"}),
    "templates in a list": config(
        chat_template=[{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d" + SAID}]
    ),
    "a list with a name twice": config(
        chat_template=[{"name": "default", "template": t + SAID} for t in ("first", "last")]
    ),
    "a template file": {"chat_template.jinja": "from the file: " + SAID},
    "a template in the folder": {"additional_chat_templates/default.jinja": "from the folder" + SAID},
    "both template files": {
        "chat_template.jinja": "file" + SAID,
        "additional_chat_templates/default.jinja": "folder" + SAID,
    },
    "a template for tools alone": {"additional_chat_templates/tool_use.jinja": "folder"},
    "a file and one for tools": {
        "chat_template.jinja": "file" + SAID,
        "additional_chat_templates/tool_use.jinja": "folder",
    },
    "chat_template.json": {"chat_template.json": {"chat_template": "from the processor"}},
    "JSON in a template": config(chat_template="{{ messages | tojson(indent=1) }}{{ messages[1] | tojson(true) }}"),
}
DIGITS = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
SPIECE = NEXT[write_sentencepiece]
SENTENCEPIECE = {
    "nothing": {},
    **each_class("LlamaTokenizer", "LlamaTokenizerFast", "GemmaTokenizer", "PreTrainedTokenizerFast"),
    **each_class("LlamaTokenizer", add_prefix_space=False),
    **each_class("LlamaTokenizer", add_prefix_space=True),
    **each_class("LlamaTokenizer", legacy=True),
    **each_class("LlamaTokenizer", legacy=False),
    **each_class("LlamaTokenizer", legacy=None, add_prefix_space=None),
    **each_class("PreTrainedTokenizerFast", legacy=True, add_prefix_space=False),
    "llama with Llama's class": of_type("llama", "LlamaTokenizer"),
    "mistral with Llama's class": of_type("mistral", "LlamaTokenizer"),
    "phi3 with Llama's class": of_type("phi3", "LlamaTokenizerFast"),
    "gemma with no class": of_type("gemma", None),
    "Llama's start that is new": of_class("LlamaTokenizer", bos_token=TURN),
    "Llama's padding": of_class("LlamaTokenizer", pad_token="<pad>"),
    "Llama's added token": of_class("LlamaTokenizer", added_tokens_decoder={str(SPIECE): token(TURN, rstrip=True)}),
    "Llama's normalized end": of_class(
        "LlamaTokenizer", added_tokens_decoder={"2": token("</s>", normalized=True), "1": token("<s>", normalized=True)}
    ),
    "the padding of tokenizer.json": {**of_class("LlamaTokenizer"), JSON: padding},
}
# What is refused instead of followed: part of the name → the field that the error names.
REFUSED = {
    "split_special_tokens": "split_special_tokens",
    "auto_map": "auto_map",
    "fix_mistral_regex": "fix_mistral_regex",
    "an end that is new": "eos_token",
    "no end": "eos_token",
    "no end of Qwen2's": "eos_token",
    "an id that is not the next": "added_tokens_decoder",
    "added_tokens.json, not the next id": "added_tokens.json",
    "a template for tools alone": "no chat template",
}
CASES = [
    (write, name, edits)
    for write, table in ((write_byte_level, BYTE_LEVEL), (write_sentencepiece, SENTENCEPIECE))
    for name, edits in table.items()
]


def edited(folder: Path, write, edits: dict) -> Path:
    write(folder)
    for name, change in edits.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(change, str):
            path.write_text(change)
            continue
        content = json.loads(path.read_text()) if path.exists() else {}
        if callable(change):
            change(content)
        else:
            content = {key: value for key, value in (content | change).items() if value is not ...}
        path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(("write", "name", "edits"), CASES, ids=[f"{w.__name__[6:]}-{n}" for w, n, _ in CASES])
def test_an_edited_folder_is_what_autotokenizer_makes_of_it(write, name, edits, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = edited(tmp_path / "model", write, edits)
    if name in REFUSED:
        with pytest.raises(InputError, match=REFUSED[name]):
            read_tokenizer(folder).render(MESSAGES)
        return
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), read_tokenizer(folder)
    for text in TEXTS:
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text) == ids, text
        for skip in (True, False):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip), text
    assert ours.inner.get_vocab() == theirs.get_vocab()
    assert ours.eos_ids[0] == theirs.eos_token_id
    assert ours.special_tokens == theirs.special_tokens_map
    assert ours.render(MESSAGES) == theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)


def test_the_classes_of_model_types_are_those_of_transformers():
    auto = pytest.importorskip("transformers.models.auto.tokenization_auto")
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    files_as_they_are = {"TokenizersBackend": "PreTrainedTokenizer", "MistralCommonBackend": "PreTrainedTokenizer"}
    names = {kind: auto.TOKENIZER_MAPPING_NAMES.get(kind) for kind in [*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *REGISTERED]}
    names = {kind: name.removesuffix("Fast") for kind, name in names.items() if name}
    slow = {"BartphoTokenizer", "SentencePieceBackend"}
    assert {kind: files_as_they_are.get(name, name) for kind, name in names.items() if name not in slow} == REGISTERED
    wrong = auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS & set(REGISTERED)
    assert {kind for kind in wrong if REGISTERED[kind] != "PreTrainedTokenizer"} == set(OVERRIDDEN)


@pytest.mark.parametrize(
    ("model_type", "named", "saved"),
    [
        ("mistral", "LlamaTokenizer", "PreTrainedTokenizerFast"),
        ("qwen2", "PreTrainedTokenizerFast", "Qwen2TokenizerFast"),
        ("qwen2", None, "Qwen2TokenizerFast"),
        ("llama", "GPT2Tokenizer", "GPT2Tokenizer"),
    ],
)
def test_a_copy_without_config_json_has_the_same_tokens(model_type, named, saved, tmp_path):
    write = write_sentencepiece if named == "LlamaTokenizer" else write_byte_level
    more = {
        "additional_chat_templates/default.jinja": "from the folder" + SAID,
        ADDED: {},
        MAP: {"eos_token": "<|im_start|>"},
    }
    more[MAP] = {} if write is write_sentencepiece else more[MAP]
    folder = edited(tmp_path / "model", write, of_type(model_type, named) | more)
    tokenizer = read_tokenizer(folder)
    tokenizer.save(tmp_path / "copy")
    again = read_tokenizer(tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / CONFIG).read_text())["tokenizer_class"] == saved
    assert [again.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    assert again.render(MESSAGES) == tokenizer.render(MESSAGES) and again.render(MESSAGES).startswith("from the folder")
    assert again.eos_ids == tokenizer.eos_ids


def test_only_special_tokens_and_markers_of_the_template_are_broken_up_in_a_text(tmp_path):
    """A word or white space that a vocabulary adds stays: prompts without markers must not change."""
    added = {str(N): token("<b>", special=False), str(N + 1): token("word", special=False)}
    added |= {str(N + 2): token("\n\n", special=False), str(N + 3): token("<c>", special=False)}
    template = "{% for m in messages %}<b>\n\nword {{ m.content }}<|im_end|>{% endfor %}"
    edits = config(added_tokens_decoder=added | {"1": token("<|im_start|>"), "2": token("<|im_end|>")})
    edits[CONFIG] |= {"chat_template": template, "pad_token": "¶"}
    tokenizer = read_tokenizer(edited(tmp_path, write_byte_level, edits))
    text = "a <|im_start|> <|im_end|> ¶ <|endoftext|> <b> <c> word\n\n"
    assert tokenizer.escape(text) == "a < |im_start|> < |im_end|>   < |endoftext|> < b> <c> word\n\n"
    special = {i for i, t in tokenizer.inner.get_added_tokens_decoder().items() if t.special}
    assert not special & set(tokenizer.encode(tokenizer.escape(text)))


def test_every_class_of_transformers_is_set_up_or_refused_by_name():
    """A name that transformers does not have leaves tokenizer.json as it is (YiTokenizer, InternLM2Tokenizer, …)."""
    mapping = pytest.importorskip("transformers.models.auto.tokenization_auto").TOKENIZER_MAPPING_NAMES
    names = {name.removesuffix("Fast") for name in mapping.values() if name}
    for name in names:
        assert class_name({"tokenizer_class": name}, {}, byte_level=False) == name
    for name in ("YiTokenizer", "QWenTokenizerFast", "BaichuanTokenizer"):
        assert class_name({"tokenizer_class": name}, {}, byte_level=False) == AS_FILE
