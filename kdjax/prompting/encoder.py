"""Titles → vectors, by a sentence encoder (all-MiniLM-L6-v2, say) that runs in a process of its own: torch is not imported here."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from kdjax.child import Child, ChildDied
from kdjax.errors import InputError
from kdjax.sources import resolve

BATCH = 64  # titles encoded side by side


class SentenceEncoder:
    """Encodes a title once; what it has encoded stays in memory.

    Raises:
        InputError: `source` is no folder of a model and its tokenizer.
    """

    def __init__(self, source: str):
        self._files = resolve(source)
        if not (self._files.folder / "tokenizer.json").is_file():  # transformers would make up an empty one
            raise InputError(
                f"prompting.encoder={source!r}: a sentence encoder has config.json, *.safetensors and tokenizer.json"
            )
        self._known: dict[str, list[float]] = {}

    def __call__(self, titles: Sequence[str]) -> Float[np.ndarray, "titles width"]:
        """Unit vectors. Those not known yet are encoded together by a process that is started for them, and ended.

        Raises:
            InputError: the encoder cannot be loaded, or failed (its last words are shown).
        """
        new = sorted({*titles} - self._known.keys(), key=len)  # so that few batches have long titles
        if new:
            self._known |= zip(new, self._encode(new), strict=True)
        return np.array([self._known[title] for title in titles], np.float32)

    def _encode(self, titles: list[str]) -> list[list[float]]:
        child = Child("kdjax.prompting.encoder_worker", {"folder": str(self._files.folder)}, {"HF_HUB_OFFLINE": "1"})
        try:
            return [vector for at in range(0, len(titles), BATCH) for vector in child.exchange(titles[at : at + BATCH])]
        except ChildDied as death:
            raise InputError(
                f"the sentence encoder {self._files.source} (prompting.encoder) failed; its last words:\n{death.last_words}"
            ) from death
        finally:
            child.kill()


@lru_cache(maxsize=2)
def sentence_encoder(source: str) -> SentenceEncoder:
    """The encoder that `source` names (a Hugging Face folder or a hub name), the same for all who ask."""
    return SentenceEncoder(source)
