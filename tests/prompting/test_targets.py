"""What a student is trained to write is what its chat template writes, in tokens that follow its prompt's own."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instruct_models import FAMILIES, SPACES, write_tokenizer
from tokenizers import Tokenizer as Inner

from kdjax.decoding import refused_target, session_language
from kdjax.errors import InputError
from kdjax.prompting import ANSWER_MARKER, Demonstration, messages, parse_answer, prompt_example, training_example
from kdjax.prompting.targets import target_ids
from kdjax.sources import Tokenizer
from kdjax.sources.tokenizer import read_tokenizer

THOUGHT = "Coffee needs a mug, café 日本."
SHOWN = {"no demonstration": 0, "two": 2}


@pytest.fixture(scope="module", params=[(family, spaces) for family in FAMILIES for spaces in SPACES], ids=" ".join)
def inst(request, tmp_path_factory):
    """A tokenizer of each family that docs/students.md names, with what its template writes around an answer."""
    family, spaces = request.param
    return read_tokenizer(write_tokenizer(tmp_path_factory.mktemp("inst"), family, spaces)), FAMILIES[family][2]


@pytest.mark.parametrize("thought", ["", THOUGHT], ids=["answer", "thought first"])
@pytest.mark.parametrize("count", SHOWN.values(), ids=SHOWN)
def test_a_target_is_the_turn_that_the_template_writes(inst, session, thought, count):
    tokenizer, (before, after) = inst
    shown = (Demonstration(session),) * count
    example = training_example(tokenizer, "d", session, "Rules: …", thought, demonstrations=shown)
    answer = f"{thought}\n{ANSWER_MARKER} [[1,3],[2,4]]" if thought else "[[1,3],[2,4]]"
    assert example.completion == f"{before}{answer}{after}</s>"
    turn = {"role": "assistant", "content": answer}
    asked = messages(session, "Rules: …", demonstrations=shown)
    assert example.prompt == tokenizer.render(asked)
    del asked[0]  # Mistral 0.3 has the system message in the last message alone, where that is the user's
    whole = tokenizer.render([*asked, turn], add_generation_prompt=False)
    assert whole.startswith(tokenizer.render(asked) + example.completion)


def test_a_system_message_stays_where_the_template_puts_it(inst, session):
    """Mistral 0.3 puts it into the last user message, after demonstrations; the others have it in the first."""
    tokenizer, _ = inst
    said = [
        {"role": "system", "content": "S one"},
        {"role": "user", "content": "1. the a"},
        {"role": "assistant", "content": "[[1,2]]"},
        {"role": "user", "content": "2. the b"},
    ]
    text = tokenizer.render(said)
    last = "loop.last" in tokenizer.settings["chat_template"]
    assert (text.index("1. the a") < text.index("S one") < text.index("2. the b")) == last
    assert last or text.index("S one") < text.index("1. the a")


@pytest.mark.parametrize("thought", ["", THOUGHT], ids=["answer", "thought first"])
def test_its_tokens_follow_those_of_the_prompt_and_read_as_the_target(inst, session, thought):
    tokenizer, (before, _) = inst
    example = training_example(tokenizer, "d", session, "Rules: …", thought)
    assert example.prompt_ids == prompt_example(tokenizer, "d", session, "Rules: …").prompt_ids
    assert list(example.prompt_ids) == tokenizer.encode(example.prompt)
    read = tokenizer.decode(example.prompt_ids + example.completion_ids, skip_special_tokens=False)
    prompt = tokenizer.decode(example.prompt_ids, skip_special_tokens=False)
    assert read == prompt + example.completion
    assert example.completion_ids[-1] == tokenizer.eos_id and example.completion_ids.count(tokenizer.eos_id) == 1
    first = tokenizer.inner.id_to_token(example.completion_ids[0])
    if not thought:
        assert first == ("▁[[" if before else "[[")


@pytest.mark.parametrize("thought", ["", THOUGHT], ids=["answer", "thought first"])
@pytest.mark.parametrize("mode", ["json", "items"])
def test_the_constraint_allows_it_and_the_parser_reads_it(inst, session, mode, thought):
    tokenizer, padding = inst
    example = training_example(tokenizer, "d", session, "Rules: …", thought)
    language = session_language(mode, len(session), ANSWER_MARKER if thought else "", padding)
    assert tokenizer.answer_padding == padding
    assert refused_target([language], tokenizer, [example.completion_ids]) is None
    answer = parse_answer(tokenizer.decode(example.completion_ids), len(session))
    assert (answer.bundles, answer.valid) == (((1, 3), (2, 4)), True)


def test_products_are_found_in_these_prompts(inst, session):
    tokenizer, _ = inst
    example = prompt_example(tokenizer, "d", session)
    told = [tokenizer.decode(example.prompt_ids[first:end]).strip() for [(first, end)] in example.products]
    assert told == list(session.titles)


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), min_size=1, max_size=20))
def test_any_text_is_written_without_a_space_of_the_tokenizers_own(inst, text):
    tokenizer, _ = inst
    text = tokenizer.escape(text)
    for prompt in ("[INST] x [/INST]", "<s>", "x</s>"):
        ids = target_ids(tokenizer, prompt, tokenizer.encode(prompt), text)
        spelled = tokenizer.token_bytes()
        assert b"".join(spelled[i] for i in ids[:-1]) == text.encode()


# template → what it writes before and after an answer. The generation prompt is the word "A:" everywhere.
ASKS = "{% for m in messages %}{% if m.role == 'assistant' %}{{ ANSWER }}{% else %}U: {{ m.content }}\n{% endif %}{% endfor %}"
ASKS += "{% if add_generation_prompt %}A:{% endif %}"
PADDING = {
    "nothing": ("'A:' + m.content + eos_token", ("", "")),
    "a space": ("'A: ' + m.content + eos_token", (" ", "")),
    "a line": ("'A:\n' + m.content + '\n' + eos_token", ("\n", "\n")),
    "words of its own": ("'A: Sure! ' + m.content + ' Bye!' + eos_token", ("", "")),
    "thinking": ("'A:<think>\n</think>\n' + m.content + eos_token", ("", "")),
    "no end": ("'A: ' + m.content + ' '", (" ", "")),
    "another prompt than it asks with": ("'B: ' + m.content + eos_token", ("", "")),
    "no answer": ("'A: '", ("", "")),
    "an error": ("raise_exception('no answers')", ("", "")),
}


@pytest.mark.parametrize("answer, padding", PADDING.values(), ids=PADDING)
def test_only_white_space_around_an_answer_belongs_to_it(answer, padding, tmp_path, session):
    template = ASKS.replace("ANSWER", answer)
    tokenizer = read_tokenizer(write_tokenizer(tmp_path, "Mistral 0.1", template=template))
    assert tokenizer.answer_padding == padding
    assert training_example(tokenizer, "d", session).completion == f"{padding[0]}[[1,3],[2,4]]{padding[1]}</s>"


def merging(tokenizer: Tokenizer, *before: str) -> Tokenizer:
    """Every one of these texts is a token with the bracket that begins an answer."""
    content = json.loads(tokenizer.inner.to_str())
    for character in before:
        content["model"]["vocab"][f"{character}["] = len(content["model"]["vocab"])
        content["model"]["merges"].append([character, "["])
    content["pre_tokenizer"]["use_regex"] = False
    return Tokenizer(Inner.from_str(json.dumps(content)), tokenizer.settings, tokenizer.eos_ids, "merging")


def test_a_prompt_whose_end_merges_with_the_answer_is_left_as_it_is(tokenizer, session):
    """The newline that ends the prompt and the bracket that begins the answer are one token here: "Ċ["."""
    example = training_example(merging(tokenizer, "Ċ"), "electronic", session)
    assert example == training_example(tokenizer, "electronic", session)


def test_an_answer_that_merges_with_everything_is_refused(tokenizer, session):
    with pytest.raises(
        InputError, match=r"electronic/s1: merging: the tokenizer merges '\[\[1,3\],\[2,4\]\]' with any"
    ):
        training_example(merging(tokenizer, "Ċ", "x", "."), "electronic", session)
