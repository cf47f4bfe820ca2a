"""One decoder for all families, over a shared prefix and a batch of examples; layers are stacked and scanned."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from kdjax.student.arrays import AnyArray
from kdjax.student.attention import KEPT, Spans, attend, causal_attention
from kdjax.student.cache import KV, Cache, CacheMasks
from kdjax.student.dropout import Dropout
from kdjax.student.families import DecoderConfig
from kdjax.student.fused import fused_attention
from kdjax.student.lora import SAVED, Here, Linears, LoRALinear
from kdjax.student.lora_config import LoraConfig
from kdjax.student.parameters import BaseParam
from kdjax.student.rope import rope_tables, rotate

# What a layer keeps for the backward pass: everything; its input and the outputs of its linear maps, rotations and attention, of which
# the rest is quickly recomputed; or its input alone, so that all is computed twice.
REMAT: dict[str, Callable[[Callable], Callable]] = {
    "none": lambda layer: layer,
    "linears": partial(jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names(SAVED, KEPT)),
    "full": jax.checkpoint,
}


@dataclass(frozen=True)
class Layout:
    """How the flat token axis is cut: `prefix` shared tokens, then `batch` rows of `length` tokens each, which hold `spans`."""

    prefix: int
    batch: int
    length: int
    spans: Spans


class RMSNorm(nnx.Module):
    """x / rms(x) · weight, computed in float32 as Llama does."""

    def __init__(self, shape: tuple[int, ...], eps: float, dtype):
        self.eps = eps
        self.weight = BaseParam(jnp.zeros(shape, dtype))

    def __call__(self, x: Float[Array, "tokens hidden"]) -> Float[Array, "tokens hidden"]:
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        return self.weight[...] * normed.astype(x.dtype)


class Attention(nnx.Module):
    """Grouped-query self-attention with rotary positions; biases, norms of q and k, and a sliding window where the family has them."""

    def __init__(self, config: DecoderConfig, common: Linears):
        self.config = config
        heads, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.q_proj = LoRALinear("q_proj", config.hidden_size, heads, common, config.qkv_bias)
        self.k_proj = LoRALinear("k_proj", config.hidden_size, kv, common, config.qkv_bias)
        self.v_proj = LoRALinear("v_proj", config.hidden_size, kv, common, config.qkv_bias)
        self.o_proj = LoRALinear("o_proj", heads, config.hidden_size, common, config.o_bias)
        if config.qk_norm:
            norm_shape = (config.num_hidden_layers, config.head_dim)
            self.q_norm = RMSNorm(norm_shape, config.rms_norm_eps, common.dtype)
            self.k_norm = RMSNorm(norm_shape, config.rms_norm_eps, common.dtype)

    def _project(self, x, rope, here: Here):
        """Rotated queries [tokens, kv, group, head_dim], rotated keys and values [tokens, kv, head_dim]."""
        config, tokens = self.config, x.shape[0]
        query = self.q_proj(x, here).reshape(tokens, config.num_attention_heads, config.head_dim)
        keys = self.k_proj(x, here).reshape(tokens, config.num_key_value_heads, config.head_dim)
        values = self.v_proj(x, here).reshape(tokens, config.num_key_value_heads, config.head_dim)
        if config.qk_norm:
            query, keys = self.q_norm(query), self.k_norm(keys)
        query, keys = (checkpoint_name(rotate(part, *rope), KEPT) for part in (query, keys))
        return query.reshape(tokens, config.num_key_value_heads, -1, config.head_dim), keys, values

    def __call__(
        self, x: Float[Array, "tokens hidden"], layout: Layout, rope, here: Here, prefix: KV | None = None
    ) -> tuple[Float[Array, "tokens hidden"], KV]:
        """Returns the output, and the keys and values of the examples in cache layout.

        The examples see the prefix at the head of the token axis, if the layout has one, or the one whose keys and values
        are given.
        """
        query, keys, values = self._project(x, rope, here)
        keys, values = (jnp.moveaxis(part, 1, 0) for part in (keys, values))
        attention = fused_attention if self.config.attention == "cudnn" else causal_attention
        out = attention(query, keys, values, layout.spans, prefix, self.config.sliding_window)
        own = (part[:, layout.prefix :] for part in (keys, values))
        keys, values = (part.reshape(part.shape[0], layout.batch, layout.length, -1) for part in own)
        return self.o_proj(out.reshape(x.shape[0], -1), here), (keys, values)

    def decode(
        self, x: Float[Array, "tokens hidden"], rope, here: Here, prefix: KV | None, prompt: KV, generated: KV, masks
    ):
        """The next tokens of each row, row by row. Returns the output and the new keys and values [kv, batch, width, head_dim]."""
        batch = prompt[0].shape[1]

        def rows(part):  # [batch · width, kv, …] → [kv, batch, width, …]
            return jnp.moveaxis(part.reshape(batch, -1, *part.shape[1:]), 2, 0)

        query, keys, values = (rows(part) for part in self._project(x, rope, here))
        new = jnp.swapaxes(keys, -1, -2), values
        segments = [(*prompt, masks.prompt), (*generated, masks.generated), (*new, masks.new)]
        if prefix is not None:
            segments.insert(0, (*prefix, masks.prefix))
        kv, _, width, group, head_dim = query.shape
        out = attend(query.reshape(kv, batch, width * group, head_dim), segments).reshape(query.shape)
        return self.o_proj(jnp.moveaxis(out, 0, 2).reshape(batch * width, -1), here), (keys, values)


class MLP(nnx.Module):
    """SwiGLU."""

    def __init__(self, config: DecoderConfig, common: Linears):
        hidden, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = LoRALinear("gate_proj", hidden, inner, common, bias)
        self.up_proj = LoRALinear("up_proj", hidden, inner, common, bias)
        self.down_proj = LoRALinear("down_proj", inner, hidden, common, bias)

    def __call__(self, x: Float[Array, "tokens hidden"], here: Here) -> Float[Array, "tokens hidden"]:
        return self.down_proj(nnx.silu(self.gate_proj(x, here)) * self.up_proj(x, here), here)


class DecoderLayer(nnx.Module):
    """Pre-norm transformer layer."""

    def __init__(self, config: DecoderConfig, common: Linears):
        norm_shape = (config.num_hidden_layers, config.hidden_size)
        self.input_layernorm = RMSNorm(norm_shape, config.rms_norm_eps, common.dtype)
        self.self_attn = Attention(config, common)
        self.post_attention_layernorm = RMSNorm(norm_shape, config.rms_norm_eps, common.dtype)
        self.mlp = MLP(config, common)

    def __call__(self, x, layout: Layout, rope, here: Here, prefix: KV | None = None):
        attended, kv = self.self_attn(self.input_layernorm(x), layout, rope, here, prefix)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x), here), kv

    def decode(self, x, rope, here: Here, prefix, prompt, generated, masks):
        attended, kv = self.self_attn.decode(self.input_layernorm(x), rope, here, prefix, prompt, generated, masks)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x), here), kv


class Embedding(nnx.Module):
    """A [vocab, hidden] table: looked up at the input, and multiplied with at the output."""

    def __init__(self, config: DecoderConfig, dtype):
        self.weight = BaseParam(jnp.zeros((config.vocab_size, config.hidden_size), dtype))


class Decoder(nnx.Module):
    """Token embedding, scanned layers, final norm; the head is applied by the caller, only where logits are wanted."""

    def __init__(self, config: DecoderConfig, dtype, lora: LoraConfig | None = None, quantization: str | None = None):
        self.config = config
        self.embed_tokens = Embedding(config, dtype)
        layers = config.num_hidden_layers
        plans = lora.plans(layers) if lora else {}
        self.layers = DecoderLayer(config, Linears(layers, dtype, quantization, plans, bool(lora and lora.use_dora)))
        self.norm = RMSNorm((config.hidden_size,), config.rms_norm_eps, dtype)
        if not config.tie_word_embeddings:
            self.lm_head = Embedding(config, dtype)

    @property
    def head(self) -> Float[Array, "vocab hidden"]:
        """The output embedding."""
        return (self.embed_tokens if self.config.tie_word_embeddings else self.lm_head).weight[...]

    def __call__(
        self,
        tokens: Int[AnyArray, "batch length"],
        prefix: Int[AnyArray, " prefix"] | None = None,
        dropout: Dropout | None = None,
        remat: str = "linears",
        starts: Int[AnyArray, "batch length"] | None = None,
        longest: int | None = None,
    ) -> Float[Array, "batch length hidden"]:
        """Last hidden states (after the final norm) of each row behind the shared prefix.

        A row is one example, or with `starts` several of at most `longest` tokens: where in the row each token's example
        begins, the row's length for padding. Rows are padded on the right: causality keeps padding from every position
        before it, what stands at padded positions means nothing. `remat` is one of REMAT.
        """
        return self.norm(self.hidden(None, tokens, prefix, dropout, remat, starts, longest))

    def hidden(
        self,
        layers: int | None,
        tokens: Int[AnyArray, "batch length"],
        prefix: Int[AnyArray, " prefix"] | None = None,
        dropout: Dropout | None = None,
        remat: str = "linears",
        starts: Int[AnyArray, "batch length"] | None = None,
        longest: int | None = None,
    ) -> Float[Array, "batch length hidden"]:
        """Hidden states behind so many layers (None: all), before any final norm. The others are not computed; the rest
        is as in `__call__`."""
        x, layout, rope = self._embed(tokens, prefix, starts=starts, longest=longest)
        graph, stack = self._stack()

        def layer(x, inputs):
            index, state = inputs
            here = Here(index, None if dropout is None else dropout.at(index))
            return nnx.merge(graph, state)(x, layout, rope, here)[0], None

        if layers is not None:
            stack = jax.tree.map(lambda leaf: leaf[:layers], stack)
        x, _ = jax.lax.scan(REMAT[remat](layer), x, stack)
        return x[layout.prefix :].reshape(layout.batch, layout.length, -1)

    def read_prefix(self, prefix: Int[Array, " prefix"]) -> KV:
        """Keys and values [layers, kv, prefix, head_dim] of what all prompts begin with."""
        _, keys, values = self._read(prefix[None], None)
        return keys[:, :, 0], values[:, :, 0]

    def prefill(
        self,
        tokens: Int[Array, "rows length"],
        last: Int[Array, " prompts"],
        prefix: KV | None,
        starts: Int[Array, "rows length"] | None = None,
        longest: int | None = None,
    ) -> tuple[Float[Array, "prompts hidden"], KV]:
        """Read prompts behind a prefix that was read before; rows as in `__call__`.

        Returns the hidden states of the tokens at the places `last` of all rows, and the keys and values of all,
        [layers, kv, rows · length, head_dim].
        """
        x, keys, values = self._read(tokens, prefix, starts, longest)
        return self.norm(x[last]), tuple(part.reshape(*part.shape[:2], -1, part.shape[-1]) for part in (keys, values))

    def decode(
        self, tokens: Int[Array, "batch width"], count: Int[Array, " batch"], cache: Cache
    ) -> tuple[Float[Array, "batch hidden"], KV]:
        """Read the next tokens, of which row b has count[b] ≥ 1.

        Returns the last one's hidden state of each row, and the keys and values [layers, kv, batch, width, head_dim] that
        `Cache.extend` takes.
        """
        batch, width = tokens.shape
        prefix_length = 0 if cache.prefix is None else cache.prefix[0].shape[2]
        positions = prefix_length + cache.next_position[:, None] + jnp.arange(width)
        x = self.embed_tokens.weight[...][tokens.reshape(-1)]
        rope = rope_tables(self.config.rope, self.config.head_dim, positions.reshape(-1))
        group = self.config.num_attention_heads // self.config.num_key_value_heads
        masks = CacheMasks.of(cache, width, group, self.config.sliding_window)
        graph, stack = self._stack()

        def layer(x, inputs):
            (index, state), prefix, prompt, generated = inputs
            return nnx.merge(graph, state).decode(x, rope, Here(index, few=True), prefix, prompt, generated, masks)

        x, new = jax.lax.scan(layer, x, (stack, cache.prefix, cache.prompt, cache.generated))
        last = jnp.take_along_axis(x.reshape(batch, width, -1), (count - 1)[:, None, None], axis=1)[:, 0]
        return self.norm(last), new

    def _read(self, tokens: Int[Array, "batch length"], prefix: KV | None, starts=None, longest=None):
        """Hidden states [batch · length, hidden] behind a prefix that was read before, and all layers' keys and values."""
        x, layout, rope = self._embed(tokens, None, 0 if prefix is None else prefix[0].shape[2], starts, longest)
        graph, stack = self._stack()

        def layer(x, inputs):
            (index, state), prefix = inputs
            return nnx.merge(graph, state)(x, layout, rope, Here(index), prefix)

        x, (keys, values) = jax.lax.scan(layer, x, (stack, prefix))
        return x, keys, values

    def _embed(self, tokens, prefix, offset: int = 0, starts=None, longest=None):
        """The flat token axis [prefix + batch · length, hidden], how it is cut, and its rotary tables.

        `offset` tokens were read before.
        """
        batch, length = tokens.shape
        prefix_length = 0 if prefix is None else prefix.shape[0]
        places = jnp.broadcast_to(jnp.arange(length), tokens.shape)
        own = (offset + prefix_length + (places if starts is None else places - starts)).reshape(-1)
        flat, positions = tokens.reshape(-1), own
        if prefix_length:
            flat, positions = jnp.concatenate([prefix, flat]), jnp.concatenate([jnp.arange(prefix_length), own])
        rope = rope_tables(self.config.rope, self.config.head_dim, positions)
        spans = Spans.of(batch, length, starts, longest, prefix_length)
        return self.embed_tokens.weight[...][flat], Layout(prefix_length, batch, length, spans), rope

    def _stack(self) -> tuple[nnx.GraphDef, tuple[Int[Array, " layers"], nnx.State]]:
        """What the scans run over: each layer's number and its slice of the parameters."""
        graph, stacked = nnx.split(self.layers)
        return graph, (jnp.arange(self.config.num_hidden_layers), stacked)
