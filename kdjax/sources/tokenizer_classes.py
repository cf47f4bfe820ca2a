"""The tokenizer classes of transformers: which one AutoTokenizer picks, and what it makes of a tokenizer.json.

Some classes take from tokenizer.json only the vocabulary and the merges, and set up everything else themselves. The
tables follow transformers 5.24 (models/auto/tokenization_auto.py and each class's own module).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from kdjax.errors import InputError

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN3_5_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class TokenizerClass:
    """How transformers sets up one class of tokenizers."""

    # (vocabulary, merges, settings) → tokenizer; None: the one in tokenizer.json, as it is
    rebuild: Callable[[dict[str, int], list[tuple[str, ...]], Mapping], Tokenizer] | None = None
    special: Mapping[str, str | None] = field(default_factory=dict)  # where the files do not name a token
    plain_special_tokens: bool = False  # at the end, special tokens lose lstrip, rstrip and single_word


def _llama(vocabulary, merges, settings) -> Tokenizer:
    prefix = settings.get("add_prefix_space") is not False
    scheme = "never" if not prefix else "always" if settings.get("legacy") else "first"
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return tokenizer


def _gemma(vocabulary, merges, settings) -> Tokenizer:
    unknown = settings.get("unk_token", "<unk>")
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=str(unknown), fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _byte_level(pattern: str | None = None, nfc: bool = True) -> Callable:
    """A byte-level BPE tokenizer that cuts text by `pattern`, or by GPT-2's where there is none."""

    def rebuild(vocabulary, merges, settings) -> Tokenizer:
        prefix = bool(settings.get("add_prefix_space"))
        tokenizer = Tokenizer(models.BPE(vocabulary, merges))
        if nfc:
            tokenizer.normalizer = normalizers.NFC()
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=pattern is None)
        split = [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, byte_level])
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer

    return rebuild


_END_OF_TEXT = "<|endoftext|>"
_QWEN_SPECIAL = {"eos_token": _END_OF_TEXT, "unk_token": _END_OF_TEXT, "pad_token": _END_OF_TEXT}
_GPT2_SPECIAL = {"bos_token": _END_OF_TEXT, "eos_token": _END_OF_TEXT, "unk_token": _END_OF_TEXT, "pad_token": None}
_LLAMA_SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_GEMMA_SPECIAL = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
AS_FILE = "PreTrainedTokenizer"
CLASSES = {
    **dict.fromkeys([AS_FILE, "TokenizersBackend", "PythonBackend", "BloomTokenizer"], TokenizerClass()),
    "LlamaTokenizer": TokenizerClass(_llama, _LLAMA_SPECIAL),
    "Qwen2Tokenizer": TokenizerClass(_byte_level(QWEN2_PATTERN), _QWEN_SPECIAL, plain_special_tokens=True),
    "Qwen3_5Tokenizer": TokenizerClass(_byte_level(QWEN3_5_PATTERN), _QWEN_SPECIAL),
    "GPT2Tokenizer": TokenizerClass(_byte_level(nfc=False), _GPT2_SPECIAL),
    "GPTNeoXTokenizer": TokenizerClass(_byte_level(), _GPT2_SPECIAL | {"pad_token": "<|padding|>"}),
    "GemmaTokenizer": TokenizerClass(_gemma, _GEMMA_SPECIAL),
}

# The class that transformers registers for a model_type, for those of its causal language models that have one.
_MODEL_TYPES = {
    AS_FILE: "beam bigbird_pegasus ernie4_5 ernie4_5_moe flex_olmo fuyu glm glm4 glm4_moe glm4_moe_lite got_ocr2 "
    "gpt_bigcode granite granitemoe granitemoehybrid granitemoeshared hyperclovax internlm2 internlm3 iquestcoder "
    "jamba kimi_linear mimo_v2_flash minicpm3 minimax_m2 ministral ministral3 mistral mixtral modernbert-decoder "
    "nemotron olmo2 olmo3 olmo_hybrid persimmon phi3 phimoe stablelm xlm-roberta-xl",
    "GPT2Tokenizer": "codegen dbrx emu3 gpt2 gpt_neo gptj jais2 opt phi starcoder2",
    "Qwen2Tokenizer": "dots3_note moss_transcribe_diarize qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next",
    "Qwen3_5Tokenizer": "qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen4_exp",
    "GPTNeoXTokenizer": "falcon_mamba gpt_neox mamba mamba2 mpt olmo olmoe rwkv xlstm",
    "GemmaTokenizer": "gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text recurrent_gemma zaya",
    "CohereTokenizer": "cohere cohere2",
    "OpenAIGPTTokenizer": "openai-gpt",
    "BertTokenizer": "bert electra ernie git megatron-bert",
    "RobertaTokenizer": "bart data2vec-text roberta roberta-prelayernorm",
    "XLMRobertaTokenizer": "trocr xlm-roberta xmod",
    "T5Tokenizer": "musicgen musicgen_melody",
    "BigBirdTokenizer": "big_bird",
    "BioGptTokenizer": "biogpt",
    "BlenderbotTokenizer": "blenderbot",
    "BlenderbotSmallTokenizer": "blenderbot-small",
    "CamembertTokenizer": "camembert",
    "CpmAntTokenizer": "cpmant",
    "CTRLTokenizer": "ctrl",
    "GPTNeoXJapaneseTokenizer": "gpt_neox_japanese",
    "MBartTokenizer": "mbart",
    "MvpTokenizer": "mvp",
    "PegasusTokenizer": "pegasus",
    "PLBartTokenizer": "plbart",
    "ProphetNetTokenizer": "prophetnet",
    "ReformerTokenizer": "reformer",
    "RemBertTokenizer": "rembert",
    "RoCBertTokenizer": "roc_bert",
    "RoFormerTokenizer": "roformer",
    "WhisperTokenizer": "whisper",
    "XGLMTokenizer": "xglm",
    "XLMTokenizer": "xlm",
    "XLNetTokenizer": "xlnet",
}
# Further classes that transformers has, and that are not set up here. A name that it does not have stands for AS_FILE.
_OTHERS = (
    "AlbertTokenizer BarthezTokenizer BartphoTokenizer BartTokenizer BertJapaneseTokenizer BertweetTokenizer ByT5Tokenizer "
    "CLIPTokenizer CanineTokenizer ClvpTokenizer CodeLlamaTokenizer CpmTokenizer DPRQuestionEncoderTokenizer "
    "DebertaTokenizer DebertaV2Tokenizer DiaTokenizer EsmTokenizer EsmcTokenizer FNetTokenizer FSMTTokenizer "
    "FlaubertTokenizer FunnelTokenizer HerbertTokenizer LEDTokenizer LasrTokenizer LayoutLMv2Tokenizer "
    "LayoutLMv3Tokenizer LayoutXLMTokenizer LukeTokenizer LxmertTokenizer MBart50Tokenizer MPNetTokenizer "
    "MarkupLMTokenizer MgpstrTokenizer MobileBertTokenizer MyT5Tokenizer NllbTokenizer NougatTokenizer "
    "ParakeetTokenizer PerceiverTokenizer PhobertTokenizer RagTokenizer SeamlessM4TTokenizer Siglip2Tokenizer "
    "SplinterTokenizer TapasTokenizer UdopTokenizer VideoPrismTokenizer VitsTokenizer Wav2Vec2CTCTokenizer "
    "Wav2Vec2PhonemeCTCTokenizer"
)
REGISTERED = {model_type: name for name, model_types in _MODEL_TYPES.items() for model_type in model_types.split()}
# Models whose files often name a wrong class: the registered one counts.
OVERRIDDEN = ("qwen2", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen4_exp")


def class_name(settings: Mapping, config: Mapping, byte_level: bool) -> str:
    """The name of the class that AutoTokenizer picks.

    Args:
        settings: tokenizer_config.json.
        config: the model's config.json, or nothing.
        byte_level: whether tokenizer.json contains a ByteLevel step.
    """
    named = settings.get("tokenizer_class") or config.get("tokenizer_class")
    model_type = config.get("model_type")
    registered = REGISTERED.get(model_type) if isinstance(model_type, str) else None
    if not named:
        return registered or AS_FILE
    if not isinstance(named, str):
        return str(named)  # no class is called so
    named = named.removesuffix("Fast")
    if named == "LlamaTokenizer" and byte_level and model_type not in OVERRIDDEN:
        return AS_FILE  # Llama 3's files: the class would set up sentencepiece's way with spaces
    if registered == AS_FILE or model_type in OVERRIDDEN:
        return registered or AS_FILE
    return named if named in (*CLASSES, *_MODEL_TYPES, *_OTHERS.split()) else AS_FILE


def rebuilt(name: str, tokenizer: Tokenizer, content: dict, settings: Mapping, where: str) -> Tokenizer:
    """What the class `name` makes of tokenizer.json, before tokens are added.

    Args:
        tokenizer: tokenizer.json as the tokenizers library reads it.
        content: tokenizer.json as JSON.
        settings: tokenizer_config.json.
        where: the folder, for errors.

    Raises:
        InputError: the class is not known, or does not fit tokenizer.json.
    """
    if name not in CLASSES:
        raise InputError(
            f"{where}: tokenizer_class {name!r} is not supported; supported: {', '.join(sorted(CLASSES))}. If its "
            "tokenizer.json is right as it is, set tokenizer_class to PreTrainedTokenizerFast in tokenizer_config.json"
        )
    for flag in ("add_prefix_space", "legacy"):
        if settings.get(flag) not in (None, True, False):
            raise InputError(
                f"{where}: {flag} in tokenizer_config.json is {settings[flag]!r}, and must be true or false"
            )
    model, rebuild = content["model"], CLASSES[name].rebuild
    if rebuild is None:
        if model.get("dropout"):
            raise InputError(
                f"{where}: dropout in tokenizer.json is {model['dropout']}: tokens would be random; set null"
            )
        return tokenizer
    if model.get("type", "BPE") != "BPE":
        raise InputError(
            f"{where}: tokenizer_class {name!r} goes with a BPE model, and tokenizer.json has {model['type']}"
        )
    merges = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model.get("merges") or []]
    with library_errors(f"{where}: tokenizer.json does not make a {name}"):
        made = rebuild(model["vocab"], merges, settings)
    return made


@contextmanager
def library_errors(what: str) -> Iterator[None]:
    """An error of the tokenizers library as an InputError that says `what`. The library raises bare Exceptions, and where
    its Rust code panics a BaseException that it does not export."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise InputError(f"{what} ({error})") from error
        raise
