"""A student: a frozen base, a LoRA adapter and a tokenizer, as plain pytrees beside one graph definition."""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from kdjax.errors import InputError
from kdjax.sources import ModelFiles, Tokenizer, load_tokenizer, open_weights, read_config, resolve
from kdjax.student import adapters
from kdjax.student.arrays import AnyArray
from kdjax.student.decoder import Decoder
from kdjax.student.families import DecoderConfig, decoder_config
from kdjax.student.lora import init_adapter
from kdjax.student.lora_config import LoraConfig
from kdjax.student.mesh import mesh_of
from kdjax.student.parameters import BaseParam, LoRAParam
from kdjax.student.quantization import METHODS, dequantize, is_quantized
from kdjax.student.weights_in import Place, check_names, flat_items, load_base

DTYPES = ("float32", "bfloat16")
ATTENTIONS = ("own", "cudnn")


@dataclass
class Student:
    """A decoder split once: `graph` is static, `base` and `adapter` are nested dicts of arrays.

    `merge(adapter, base)` gives the module back inside a jitted function. `lora` is None, and `adapter` empty, for the
    untrained student.
    """

    config: DecoderConfig
    files: ModelFiles
    tokenizer: Tokenizer
    graph: nnx.GraphDef
    base: dict
    adapter: dict
    lora: LoraConfig | None
    quantization: str | None = None

    def merge(self, adapter: dict, base: dict) -> Decoder:
        """The decoder over these parameters; cheap, meant for use inside jit. What suits the devices best is compiled only where
        a mesh is set while tracing (see `kdjax.student.mesh`)."""
        return nnx.merge(self.graph, adapter, base)

    def logits(
        self, tokens: Int[AnyArray, "batch seq"], lengths: Int[AnyArray, " batch"] | None = None
    ) -> Float[Array, "batch seq vocab"]:
        """Next-token logits, float32. Where `lengths` are given the rows are right-padded, and the logits at padding are 0."""
        tokens = jnp.asarray(tokens, jnp.int32)
        if tokens.ndim != 2 or tokens.size == 0:
            raise InputError(f"tokens must be a non-empty [batch, seq] array, got shape {tokens.shape}")
        if tokens.min() < 0 or tokens.max() >= self.config.vocab_size:
            raise InputError(f"tokens must be ids in [0, {self.config.vocab_size}); JAX would clamp others in silence")
        if lengths is None:
            lengths = jnp.full(tokens.shape[0], tokens.shape[1])
        mesh = mesh_of(self.base)
        return _logits(self.graph, mesh, self.adapter, self.base, tokens, jnp.asarray(lengths, jnp.int32))

    def save_adapter(self, folder: str | Path) -> None:
        """Write the adapter in PEFT's format; see `adapters.save_adapter`."""
        if self.lora is None:
            raise InputError("this student has no adapter to save; load it with lora=LoraConfig(...)")
        adapters.save_adapter(Path(folder), self.adapter, self.lora, base_name=self.files.source)

    def load_adapter(self, folder: str | Path) -> None:
        """Replace the adapter by one on disk, in PEFT's format; its rank and targets replace this student's."""
        lora = _read_lora(Path(folder), self.config)
        dtype = self.base["norm"]["weight"].dtype
        graph, abstract, _ = _split(self.config, lora, dtype, self.quantization)
        adapter = adapters.load_adapter(Path(folder), abstract, lora)
        self.lora, self.graph, self.adapter = lora, graph, adapter  # all or nothing

    def save_merged(self, folder: str | Path) -> None:
        """Write a Hugging Face model folder with the adapter added into the weights."""
        adapters.save_merged(Path(folder), self.base, self.adapter, self.lora, read_config(self.files))
        self.tokenizer.save(Path(folder))


def load_student(
    source: str,
    *,
    lora: LoraConfig | None = None,
    adapter: str | Path | None = None,
    quantization: str | None = None,
    dtype: str = "float32",
    seed: int = 0,
    attention: str = "own",
    place: Place = lambda path, array: jnp.asarray(array),
) -> Student:
    """Load a base model and, with `lora`, a fresh adapter (PEFT's init, from `seed`), or with `adapter` one from disk.

    Args:
        source: folder, .gguf file, hub name or pypi: string, see `kdjax.sources.resolve`.
        dtype: dtype of the frozen base and of activations; adapters are always float32.
        quantization: None, "int8" or "nf4": how the linear layers of the frozen base are kept (see `quantization`).
        attention: what computes the attention of whole examples: "own", our blockwise one, or "cudnn", on a GPU and in bfloat16 alone.
        place: puts a parameter of the base, named by its path, on its devices, so that a base which no device could hold is never on one.

    Raises:
        InputError: files, architecture, tensors or settings that cannot be used exactly as given.
    """
    files = resolve(source)
    _check_attention(attention, dtype, place)
    config = replace(_check(files, lora, adapter, quantization, dtype), attention=attention)
    tokenizer = load_tokenizer(files)
    if (highest := tokenizer.highest_id) >= config.vocab_size:
        raise InputError(
            f"{source}: the tokenizer has ids up to {highest}, and config.json vocab_size={config.vocab_size}"
        )
    graph, abstract_adapter, abstract_base = _split(config, lora, jnp.dtype(dtype), quantization)
    base = load_base(abstract_base, open_weights(files), config.num_hidden_layers, jnp.dtype(dtype), source, place)
    fresh = _fresh_adapter(abstract_adapter, base, lora, config.num_hidden_layers, seed) if lora else {}
    student = Student(config, files, tokenizer, graph, base, fresh, lora, quantization)
    if adapter is not None:
        student.load_adapter(adapter)
    return student


def check_student(
    source: str,
    *,
    lora: LoraConfig | None = None,
    adapter: str | Path | None = None,
    quantization: str | None = None,
    dtype: str = "float32",
) -> DecoderConfig:
    """Raise what `load_student` would, as far as it shows without reading weights. Returns the decoder's shape."""
    return _check(resolve(source), lora, adapter, quantization, dtype)


def read_adapter(folder: str | Path, source: str) -> tuple[DecoderConfig, LoraConfig, dict]:
    """An adapter in PEFT's format, checked against the shape of its base: that shape, the settings and the stacked arrays.

    The base's weights are not read.

    Raises:
        InputError: the files cannot be used, or do not fit each other.
    """
    config = check_student(source, adapter=folder)
    lora = _read_lora(Path(folder), config)
    _, abstract, _ = _split(config, lora, jnp.dtype("float32"), None)
    return config, lora, adapters.load_adapter(Path(folder), abstract, lora)


def _check(files: ModelFiles, lora, adapter, quantization, dtype) -> DecoderConfig:
    if quantization not in (None, *METHODS):
        raise InputError(
            f"student.quantization={quantization!r} is not supported; choose from None, {', '.join(METHODS)}"
        )
    if dtype not in DTYPES:
        raise InputError(f"student.dtype={dtype!r} is not supported; choose from {', '.join(DTYPES)}")
    if lora is not None and adapter is not None:
        raise InputError("give either lora (a fresh adapter) or adapter (one from disk), not both")
    config, weights = decoder_config(read_config(files), files.source), open_weights(files)
    if config.num_hidden_layers > len(weights):
        raise InputError(
            f"{files.source}: config.json says num_hidden_layers={config.num_hidden_layers}, of only {len(weights)} tensors"
        )
    if lora is not None:
        lora.check(config.num_hidden_layers)
        _check_ranks(lora, config)
    elif adapter is not None:
        lora = _read_lora(Path(adapter), config)
    _, _, base = _split(config, lora, jnp.dtype(dtype), quantization)
    check_names(base, weights, config.num_hidden_layers, files.source)
    return config


def _check_attention(attention: str, dtype: str, place: Place) -> None:
    if attention not in ATTENTIONS:
        raise InputError(f"attention={attention!r} is not supported; choose from {', '.join(ATTENTIONS)}")
    if attention == "cudnn":
        [device, *_] = place(("norm", "weight"), np.zeros(1, np.float32)).devices()  # any parameter shows where they go
        if (device.platform, dtype) != ("gpu", "bfloat16"):
            raise InputError(
                f"attention='cudnn' takes a GPU and dtype='bfloat16', and this is a {device.platform} and {dtype!r}"
            )


def _read_lora(folder: Path, config: DecoderConfig) -> LoraConfig:
    lora = adapters.read_lora_config(folder)
    try:
        _check_ranks(lora, config)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    return lora


def _check_ranks(lora: LoraConfig, config: DecoderConfig) -> None:
    """No update of a linear map has a higher rank than its smaller side, which is at most the hidden size."""
    rank = max(plan.rank for plan in lora.plans(config.num_hidden_layers).values())
    if rank > config.hidden_size:
        raise InputError(f"lora: the rank {rank} is above the model's hidden size {config.hidden_size}; lower it")


def _split(
    config: DecoderConfig, lora: LoraConfig | None, dtype, quantization: str | None
) -> tuple[nnx.GraphDef, dict, dict]:
    """The decoder's structure, and the shapes of its adapter and of its base as nested dicts; no array is made."""
    decoder = nnx.eval_shape(lambda: Decoder(config, dtype, lora, quantization))
    graph, *states = nnx.split(decoder, LoRAParam, BaseParam)
    adapter, base = map(nnx.to_pure_dict, states)
    return graph, adapter, base


def _fresh_adapter(abstract: dict, base: dict, lora: LoraConfig, layers: int, seed: int) -> dict:
    plans = lora.plans(layers)
    norms = {}
    if lora.use_dora:
        maps = {path[-2]: leaf for path, leaf in flat_items(base) if path[0] == "layers" and path[-1] == "weight"}
        for name in (name for name, plan in plans.items() if plan.rank):
            leaf = maps[name]
            weight = dequantize(**leaf) if is_quantized(leaf) else leaf
            norms[name] = jnp.linalg.norm(weight.astype(jnp.float32), axis=-1)
    return init_adapter(abstract, plans, jax.random.key(seed), norms)


@jax.jit(static_argnums=(0, 1))
def _logits(graph, mesh, adapter, base, tokens, lengths):
    decoder = nnx.merge(graph, adapter, base)
    with jax.sharding.use_abstract_mesh(mesh):
        logits = jnp.matmul(decoder(tokens), decoder.head.T, preferred_element_type=jnp.float32)
    inside = jnp.arange(tokens.shape[1]) < lengths[:, None]
    return jnp.where(inside[..., None], logits, 0.0)
