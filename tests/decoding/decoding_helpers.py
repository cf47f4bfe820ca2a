"""A tiny student and prompts, a tokenizer with long tokens, and greedy decoding under an automaton on the host."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from kdjax.prompting import Example
from kdjax.sources import Tokenizer
from kdjax.sources.tiny import write_tiny_model
from kdjax.student import LoraConfig, Student, load_student

STEPS = 24
END = 65  # a token that the random model comes to now and then; its own end-of-turn token it may never say
MERGES = "1 0|1 2|2 3|2 5|1 1|[ [|] ]|] ,|], [|Ġ [[|, 3|1 ,3|[ 1|s :|Bundle s:|B u|Bu n|Bun d|Bund l|Bundl e|s: Ġ"
HOSTILE = [
    "],[1,2]]",
    "1,2],[1,2]]",
    ",[1,2],[1,2]]",
    "s:ĠĠ",
    ":Ġ[[",
    "es:Ġ[[1",
    "oĊBund",
    "s:s:",
    "0]]",
    "[[1,2],[1,2]]",
]


def tiny_student(folder: Path) -> Student:
    """Two random layers with a random adapter, written into `folder` on first use; END ends a turn."""
    if not (folder / "config.json").is_file():
        write_tiny_model(folder)
    student = load_student(str(folder), lora=LoraConfig(r=4, lora_alpha=8))
    rng = np.random.default_rng(5)
    student.adapter = jax.tree.map(lambda a: jnp.asarray(rng.normal(0, 0.1, a.shape), a.dtype), student.adapter)
    student.tokenizer = Tokenizer(student.tokenizer.inner, {}, [END, student.tokenizer.eos_id], str(folder))
    return student


def random_prompts(domain: str, count: int, prefix: int) -> list[Example]:
    """Prompts of random tokens behind a common beginning of `prefix` tokens, with 1 to 20 tokens of their own."""
    rng = np.random.default_rng([ord(domain), prefix])
    shared = tuple(rng.integers(3, 259, prefix).tolist())
    return [
        Example(domain, f"{domain}{i}", "", shared + tuple(rng.integers(3, 259, rng.integers(1, 21)).tolist()))
        for i in range(count)
    ]


PROMPTS = random_prompts("a", 7, prefix=13) + random_prompts("b", 3, prefix=13)


def long_tokenizer() -> Tokenizer:
    """All bytes, and byte pairs merged over the answer's every boundary; some tokens no merge reaches, but a model may choose them."""
    merges = [tuple(merge.split(" ")) for merge in MERGES.split("|")]
    ordered = sorted(merges, key=lambda merge: len("".join(merge)))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = dict.fromkeys(["<eos>", *alphabet, *("".join(merge) for merge in ordered), *HOSTILE])
    inner = tokenizers.Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, ordered))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<eos>"])
    return Tokenizer(inner, {}, [0], "long tokens")


@jax.jit
def _choose(automaton, state, added, remaining, logits):
    legal = automaton.legal(state, added, remaining)
    token = jnp.argmax(jnp.where(legal, logits, -jnp.inf), axis=-1)
    return token, legal.any(axis=-1), *automaton.advance(state, added, token)


def write(automaton, starts, budget: int, eos: int, logits) -> list[list[int]]:
    """Greedy decoding of one row per start state; `logits(rows)` is [batch, vocab]. A row ends with the end-of-turn token."""
    state, added = np.asarray(starts), np.zeros(len(starts), int)
    rows: list[list[int]] = [[] for _ in starts]
    for remaining in reversed(range(budget)):
        token, possible, state, added = _choose(automaton, state, added, remaining, logits(rows))
        for row, chosen, some in zip(rows, token.tolist(), possible.tolist(), strict=True):
            if row[-1:] != [eos]:
                assert some, f"nothing may follow {row}"
                row.append(chosen)
        if all(row[-1] == eos for row in rows):
            break
    return rows


def follow(automaton, start: int, budget: int, eos: int, wanted: list[int]) -> list[int]:
    """What is written if the next wanted token is always the likeliest: what was wanted, where it is allowed."""

    def logits(rows) -> np.ndarray:
        likely = np.zeros((1, automaton.class_of_token.shape[0]), np.float32)
        likely[0, wanted[min(len(rows[0]), len(wanted) - 1)]] = 1.0
        return likely

    return write(automaton, [start], budget, eos, logits)[0]


def spell(tokenizer: Tokenizer, ids: list[int]) -> bytes:
    """The bytes of `ids` without the end-of-turn token."""
    table = tokenizer.token_bytes()
    return b"".join(table[i] for i in ids if i != tokenizer.eos_id)
