"""The tokenizer inside a GGUF file: byte-level BPE, its special tokens, and what ends a turn."""

from collections.abc import Callable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from kdjax.errors import InputError
from kdjax.sources.gguf_metadata import GGUFMetadata
from kdjax.sources.tokenizer_classes import library_errors

LLAMA3_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # gguf.TokenType; a user-defined token is text
ENDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
# Texts of tokens that end a turn, in llama.cpp too, where the file does not name one (tokenizer.ggml.eot_token_id).
TURN_ENDS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|end_of_turn|>", "<|endofturn|>")
BOS, TEMPLATE = "tokenizer.ggml.bos_token_id", "tokenizer.chat_template"


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _smollm() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


def _llama3() -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


PRE_TOKENIZERS: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "gpt-2": _gpt2,
    "smollm": _smollm,
    "llama-bpe": _llama3,
}


def end_ids(metadata: GGUFMetadata) -> list[int]:
    """The ids of the tokens that end a turn: end of sequence, then of turn and of message where the file names them.

    Where it names no end of turn, special tokens that are known to be one count.
    """
    tokens = metadata.list_of(str, "tokenizer.ggml.tokens")
    ends = [tokens.index(metadata.token(name)) for name in ENDS if name == ENDS[0] or name in metadata.fields]
    if ENDS[1] not in metadata.fields:
        kinds = metadata.list_of(int, "tokenizer.ggml.token_type")
        ends += [
            i
            for i, (text, kind) in enumerate(zip(tokens, kinds, strict=False))
            if text in TURN_ENDS and kind == CONTROL
        ]
    return list(dict.fromkeys(ends))


def gguf_tokenizer(metadata: GGUFMetadata) -> tuple[Tokenizer, dict]:
    """The byte-level BPE tokenizer, and what a tokenizer_config.json would say (template, special tokens).

    Raises:
        InputError: the file does not say how text is cut, or says it in a way that is not supported.
    """
    path, model, family = (
        metadata.path,
        metadata.field("tokenizer.ggml.model"),
        metadata.fields.get("tokenizer.ggml.pre"),
    )
    if model != "gpt2":
        raise InputError(f"{path}: tokenizer model {model!r} is not supported, only byte-level BPE ('gpt2')")
    if family in (None, "default"):
        raise InputError(
            f"{path}: tokenizer.ggml.pre is {family or 'missing'!r}, so the file does not say how its tokenizer cuts text; "
            "convert the model again with a newer llama.cpp, or use the Hugging Face folder"
        )
    if family not in PRE_TOKENIZERS:
        raise InputError(f"{path}: pre-tokenizer {family!r} is not supported; use the Hugging Face folder instead")
    tokens = metadata.list_of(str, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in metadata.list_of(str, "tokenizer.ggml.merges")]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        twice = next(token for i, token in enumerate(tokens) if vocabulary[token] != i)
        raise InputError(f"{path}: the token {twice!r} is twice in tokenizer.ggml.tokens")
    with library_errors(f"{path}: tokens and merges do not make a tokenizer"):
        tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=family == "llama-bpe"))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[family]()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(_added_tokens(metadata, tokens, {"".join(merge) for merge in merges}))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": metadata.token(BOS),
        "eos_token": metadata.token(ENDS[0]),
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata.field("llama.context_length"),
    }
    if TEMPLATE in metadata.fields:
        settings["chat_template"] = metadata.field(TEMPLATE)
    return tokenizer, settings


def _added_tokens(metadata: GGUFMetadata, tokens: list[str], merged: set[str]) -> list[AddedToken]:
    """The tokens that are found whole in a text.

    Some converters type special tokens as normal or user-defined. They are special all the same where the file names
    them, or where the chat template writes one that no merge makes: as text it could not be that token. A user-defined
    token without a name stays text when it is decoded, as in Hugging Face's files (<think> is one).
    """
    kinds = metadata.list_of(int, "tokenizer.ggml.token_type")
    if len(kinds) != len(tokens):
        raise InputError(
            f"{metadata.path}: tokenizer.ggml.token_type has {len(kinds)} entries for {len(tokens)} tokens"
        )
    if strange := [kind for kind in kinds if not NORMAL <= kind <= BYTE]:
        raise InputError(f"{metadata.path}: tokenizer.ggml.token_type has the unknown type {strange[0]}")
    named = {metadata.token(BOS), *(tokens[i] for i in end_ids(metadata))}
    template = metadata.fields.get(TEMPLATE)
    template = template if isinstance(template, str) else ""

    def special(token: str, kind: int) -> bool:
        written = kind == NORMAL and len(token) > 1 and token not in merged and token in template
        return kind in (CONTROL, UNKNOWN) or token in named or written

    return [
        AddedToken(token, special=special(token, kind), normalized=False)
        for token, kind in zip(tokens, kinds, strict=True)
        if kind == USER_DEFINED or special(token, kind)
    ]
