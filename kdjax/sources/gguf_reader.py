"""The metadata and the tensors of a GGUF file, out of a file that is mapped and read once.

Not gguf's own reader: that makes several arrays for each word of the vocabulary, which takes seconds. The layout is
described at https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from jaxtyping import Float, UInt8

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
VERSIONS = (2, 3)
ALIGNMENT = 32  # of the tensors' data, where the file does not say
BLOCKS = 1 << 10  # of weights at most, in what `dequantize` takes for a row; it computes 16 rows at a time


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor as it is stored, in the mapped file; `shape` is that of its values."""

    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    data: UInt8[np.ndarray, " bytes"]

    def read(self) -> Float[np.ndarray, "..."]:
        """The tensor, dequantised to float32."""
        _, size = GGML_QUANT_SIZES[self.kind]
        rows = self.data.reshape(-1, size * math.gcd(len(self.data) // size, BLOCKS))
        return dequantize(rows, self.kind).reshape(self.shape).astype(np.float32, copy=False)


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
    """Metadata (name → number, text or list) and tensors (name → record) of a little-endian GGUF file.

    Raises:
        ValueError, struct.error, OSError, OverflowError, RecursionError: the file is no GGUF file, or not all of one.
    """
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if content[:4] != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    return _Reader(content).read()


class _Reader:
    """Goes through the file from its start to the tensors' data."""

    def __init__(self, content: mmap.mmap):
        self._content, self._at = content, 4  # behind the four letters

    def read(self) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
        version, n_tensors, n_fields = self._scalar("I"), self._scalar("Q"), self._scalar("Q")
        if version and not version & 0xFFFF:
            raise ValueError("its bytes are in big-endian order, and only little-endian files are read")
        if version not in VERSIONS:
            raise ValueError(f"its version is {version}, and only {VERSIONS} are read")
        fields = {self._string(): self._value(self._scalar("I")) for _ in range(n_fields)}
        stored = {self._string(): self._tensor() for _ in range(n_tensors)}
        if len(fields) != n_fields or len(stored) != n_tensors:
            raise ValueError("a name is there twice")
        alignment = fields.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"its alignment is {alignment!r}")
        start = -(-self._at // alignment) * alignment
        return fields, {name: self._placed(start, *tensor) for name, tensor in stored.items()}

    @overload
    def _scalar(self, form: Literal["I", "Q"]) -> int: ...
    @overload
    def _scalar(self, form: str) -> int | float: ...
    def _scalar(self, form):
        (value,) = struct.unpack_from("<" + form, self._content, self._at)
        self._at += struct.calcsize("<" + form)
        return value

    def _string(self) -> str:
        length = self._scalar("Q")
        if length > len(self._content) - self._at:
            raise ValueError(f"a text of {length} bytes is longer than the rest of the file")
        self._at += length
        return self._content[self._at - length : self._at].decode()

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            return self._scalar(_form(kind))
        kind, count = self._scalar("I"), self._scalar("Q")
        if kind in (STRING, ARRAY):
            return [self._value(kind) for _ in range(count)]
        values = np.frombuffer(self._content, "<" + _form(kind), count, self._at)
        self._at += values.nbytes
        return values.tolist()

    def _tensor(self) -> tuple[tuple[int, ...], int, int]:
        """Shape, kind, and where the data begins behind the start of all data."""
        sizes = [self._scalar("Q") for _ in range(self._scalar("I"))]
        return tuple(reversed(sizes)), self._scalar("I"), self._scalar("Q")

    def _placed(self, start: int, shape: tuple[int, ...], kind: int, offset: int) -> GGUFTensor:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        if shape[-1:] and shape[-1] % block:
            raise ValueError(f"a tensor of shape {shape} is not a whole number of blocks of {block}")
        count = math.prod(shape) // block * size
        return GGUFTensor(
            shape, GGMLQuantizationType(kind), np.frombuffer(self._content, np.uint8, count, start + offset)
        )


def _form(kind: int) -> str:
    if kind not in SCALARS:
        raise ValueError(f"a metadata field is of the unknown kind {kind}")
    return SCALARS[kind]
