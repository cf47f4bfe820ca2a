"""Which linear maps get an adapter, of which rank and scale: PEFT's `LoraConfig`, field for field."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from kdjax.errors import InputError

LINEAR_PATHS = {  # name → path inside a layer
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "o_proj": "self_attn.o_proj",
    "gate_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "down_proj": "mlp.down_proj",
}
LINEAR_NAMES = tuple(LINEAR_PATHS)
Number = TypeVar("Number", int, float)
LIST = re.compile(r"""[\[(]?[\w.,\s'"]*[\])]?""")
NOT_LINEAR = ("lm_head", "embed_tokens")  # never adapted, so that naming them as exceptions is harmless


@dataclass(frozen=True)
class Plan:
    """The adapter of one linear map in each layer: its rank (0: none) and the scale of its update."""

    ranks: tuple[int, ...]
    scales: tuple[float, ...]

    @property
    def rank(self) -> int:
        """The rank of the stack: the largest; 0 where no layer is adapted."""
        return max(self.ranks)


@dataclass(frozen=True)
class LoraConfig:
    """PEFT's `LoraConfig`, the fields that are supported; names, meanings and defaults are PEFT's.

    `target_modules`: "all-linear" (every linear layer but the head); a list of names or of path endings
    ("self_attn.q_proj"), which one string may hold ("q_proj,v_proj", "['q_proj', 'v_proj']"); or a regular expression that
    the whole path ("model.layers.0.self_attn.q_proj") must match. A string that is just a name is that name.
    `exclude_modules` takes the same forms. `layers_to_transform`: numbers of the layers to adapt. `rank_pattern` and
    `alpha_pattern`: regular expression of a path's ending → value in place of r or lora_alpha; the first that fits counts.
    The update is scaled by lora_alpha / r, or by lora_alpha / sqrt(r) with `use_rslora` (arXiv 2312.03732). `use_dora`
    (arXiv 2402.09353): the rows of the sum of weight and update are rescaled to a trained length.
    """

    r: int = 8
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    target_modules: str | Sequence[str] = "all-linear"
    exclude_modules: str | Sequence[str] = ()
    use_rslora: bool = False
    use_dora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    layers_to_transform: int | Sequence[int] | None = None

    def __post_init__(self):
        for name in ("target_modules", "exclude_modules"):
            object.__setattr__(self, name, _names(getattr(self, name)))  # the dataclass is frozen
        ranks = {"r": self.r} | {f"rank_pattern[{key!r}]": rank for key, rank in self.rank_pattern.items()}
        for name, rank in ranks.items():
            if type(rank) is not int or rank < 1:
                raise InputError(f"lora.{name}={rank!r}: the rank must be a whole number, at least 1")
        for key, alpha in {"lora_alpha": self.lora_alpha, **self.alpha_pattern}.items():
            if type(alpha) not in (int, float) or not math.isfinite(alpha) or not alpha:
                raise InputError(f"lora: the alpha of {key!r} must be a finite number other than 0, not {alpha!r}")
        for name in ("use_rslora", "use_dora"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"lora.{name}={getattr(self, name)!r}: must be true or false")
        if type(self.lora_dropout) not in (int, float) or not 0.0 <= self.lora_dropout < 1.0:
            raise InputError(f"lora.lora_dropout={self.lora_dropout}: must be in [0, 1)")
        regexes = [(n, key) for n in ("rank_pattern", "alpha_pattern") for key in getattr(self, n)]
        regexes += [(n, getattr(self, n)) for n in ("target_modules", "exclude_modules") if self.is_regex(n)]
        for name, pattern in regexes:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(f"lora.{name}: {pattern!r} is not a regular expression ({error})") from error
        if not all(type(layer) is int for layer in _as_tuple(self.layers_to_transform)):
            raise InputError(f"lora.layers_to_transform={self.layers_to_transform!r}: must be numbers of layers")
        if self.is_regex("target_modules") and _as_tuple(self.layers_to_transform):
            raise InputError("lora.layers_to_transform: not with a regular expression in target_modules; say it there")

    def check(self, layers: int | None = None) -> None:
        """Refuse what a person has misspelt and PEFT ignores: an entry that fits nothing.

        Without the number of layers only names are checked. Adapters from disk are not: their tensors say what they hold.

        Raises:
            InputError: naming the entry.
        """
        if not self.target_modules:
            raise InputError(f"lora.target_modules is empty; there are {', '.join(LINEAR_NAMES)}")
        paths = [f"model.layers.{i}.{inside}" for i in range(layers or 0) for inside in LINEAR_PATHS.values()]
        for name in ("target_modules", "exclude_modules"):
            value, regex = getattr(self, name), self.is_regex(name)
            for entry in () if value in ("", "all-linear") else _as_tuple(value):
                last = entry.split(".")[-1]
                if name == "exclude_modules" and last in NOT_LINEAR:
                    continue
                named = regex or last in LINEAR_NAMES
                if not named or (layers and not any(_fits(entry if regex else (entry,), path) for path in paths)):
                    raise InputError(
                        f"lora.{name}: {entry!r} fits no linear layer; there are {', '.join(LINEAR_NAMES)}"
                    )
        for name in ("rank_pattern", "alpha_pattern"):
            for pattern in getattr(self, name):
                if layers and not any(_ends_with(pattern, path) for path in paths):
                    raise InputError(f"lora.{name}: {pattern!r} fits no linear layer of the model")
        for layer in _as_tuple(self.layers_to_transform):
            if layers and not 0 <= layer < layers:
                raise InputError(f"lora.layers_to_transform: there is no layer {layer}, the model has {layers}")

    def plans(self, layers: int) -> dict[str, Plan]:
        """The adapter of each linear map, by its name, in a decoder of so many layers, as PEFT would place it.

        Raises:
            InputError: no linear layer is left.
        """
        plans = {}
        for name, inside in LINEAR_PATHS.items():
            paths = [f"model.layers.{layer}.{inside}" for layer in range(layers)]
            ranks = [
                _by_pattern(self.rank_pattern, path, self.r) if self._is_target(path, layer) else 0
                for layer, path in enumerate(paths)
            ]
            scales = [self._scale(path, rank) if rank else 0.0 for path, rank in zip(paths, ranks, strict=True)]
            plans[name] = Plan(tuple(ranks), tuple(scales))
        if not any(plan.rank for plan in plans.values()):
            raise InputError(f"lora.target_modules={self.target_modules!r} and its exceptions leave no linear layer")
        return plans

    def _is_target(self, path: str, layer: int) -> bool:
        if self.exclude_modules and _fits(self.exclude_modules, path):
            return False
        targets = LINEAR_NAMES if self.target_modules == "all-linear" else self.target_modules
        if not isinstance(targets, str) and path in targets:
            return True  # a whole path is meant wherever it is, as in PEFT
        return _fits(targets, path) and layer in (_as_tuple(self.layers_to_transform) or (layer,))

    def _scale(self, path: str, rank: int) -> float:
        alpha = _by_pattern(self.alpha_pattern, path, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def is_regex(self, name: str) -> bool:
        """Whether the field `name`, target_modules or exclude_modules, is a regular expression."""
        value = getattr(self, name)
        return isinstance(value, str) and value not in ("", "all-linear") and not value.isidentifier()


def _names(value: str | Sequence[str]) -> str | Sequence[str]:
    """A list of names that is written in one string, as a tuple; anything else as it is.

    Such a string holds a comma or stands in brackets, and as a regular expression would match no path.
    """
    if not isinstance(value, str) or not LIST.fullmatch(value) or not ("," in value or value.startswith("[")):
        return value
    return tuple(re.findall(r"[\w.]+", value))


def _fits(targets: str | Sequence[str], path: str) -> bool:
    """PEFT's check_target_module_exists: a list matches endings of a path, a string is a regular expression of all of it."""
    if isinstance(targets, str) and not targets.isidentifier():
        return re.fullmatch(targets, path) is not None
    return any(path == target or path.endswith(f".{target}") for target in _as_tuple(targets))


def _ends_with(pattern: str, path: str) -> bool:
    """PEFT's get_pattern_key."""
    return re.match(rf"(.*\.)?({pattern})$", path) is not None


def _by_pattern(patterns: Mapping[str, Number], path: str, default: Number) -> Number:
    return next((value for pattern, value in patterns.items() if _ends_with(pattern, path)), default)


def _as_tuple(value) -> tuple:
    if value is None:
        return ()
    return (value,) if isinstance(value, str | int) else tuple(value)
