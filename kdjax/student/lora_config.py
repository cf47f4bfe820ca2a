"""Which linear maps get an adapter, of which rank and scale: PEFT's `LoraConfig`, field for field."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
    ("self_attn.q_proj"); or a regular expression that the whole path ("model.layers.0.self_attn.q_proj") must match. A string
    that is just a name is that name. `exclude_modules` takes the same two forms. `layers_to_transform`: numbers of the layers
    to adapt. `rank_pattern` and `alpha_pattern`: regular expression of a path's ending → value in place of r or lora_alpha;
    the first that fits counts. The update is scaled by lora_alpha / r, or by lora_alpha / sqrt(r) with `use_rslora`
    (arXiv 2312.03732). `use_dora` (arXiv 2402.09353): the rows of the sum of weight and update are rescaled to a trained length.
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
        for name, rank in (("r", self.r), *((f"rank_pattern[{key!r}]", r) for key, r in self.rank_pattern.items())):
            if rank < 1:
                raise InputError(f"lora.{name}={rank}: the rank must be at least 1")
        for name in ("target_modules", "exclude_modules"):
            entries = () if self._is_regex(name) else _as_tuple(getattr(self, name))
            unknown = sorted(e for e in entries if e not in ("", "all-linear") and e.split(".")[-1] not in LINEAR_NAMES)
            if unknown or (name == "target_modules" and not getattr(self, name)):
                raise InputError(f"lora.{name}: {unknown} fits no linear layer; there are {', '.join(LINEAR_NAMES)}")
        if not 0.0 <= self.lora_dropout < 1.0:
            raise InputError(f"lora.lora_dropout={self.lora_dropout}: must be in [0, 1)")
        regexes = [("rank_pattern", key) for key in self.rank_pattern]
        regexes += [("alpha_pattern", key) for key in self.alpha_pattern]
        regexes += [(n, getattr(self, n)) for n in ("target_modules", "exclude_modules") if self._is_regex(n)]
        for name, pattern in regexes:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(f"lora.{name}: {pattern!r} is not a regular expression ({error})") from error
        if self._is_regex("target_modules") and self.layers_to_transform is not None:
            raise InputError("lora.layers_to_transform: not with a regular expression in target_modules; say it there")

    def plans(self, layers: int) -> dict[str, Plan]:
        """The adapter of each linear map, by its name, in a decoder of so many layers.

        Raises:
            InputError: an entry that fits nothing: it would be ignored in silence.
        """
        self._check_entries(layers)
        plans = {}
        for name, inside in LINEAR_PATHS.items():
            paths = [f"model.layers.{layer}.{inside}" for layer in range(layers)]
            chosen = [self._is_target(path, layer) for layer, path in enumerate(paths)]
            ranks = [
                int(_by_pattern(self.rank_pattern, path, self.r)) if c else 0
                for path, c in zip(paths, chosen, strict=True)
            ]
            scales = [self._scale(path, rank) if rank else 0.0 for path, rank in zip(paths, ranks, strict=True)]
            plans[name] = Plan(tuple(ranks), tuple(scales))
        if not any(plan.rank for plan in plans.values()):
            raise InputError(f"lora.target_modules={self.target_modules!r} and its exceptions leave no linear layer")
        return plans

    def _is_target(self, path: str, layer: int) -> bool:
        if self.layers_to_transform is not None and layer not in _as_tuple(self.layers_to_transform):
            return False
        targets = LINEAR_NAMES if self.target_modules == "all-linear" else self.target_modules
        return _fits(targets, path) and not (self.exclude_modules and _fits(self.exclude_modules, path))

    def _scale(self, path: str, rank: int) -> float:
        alpha = _by_pattern(self.alpha_pattern, path, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def _is_regex(self, name: str) -> bool:
        value = getattr(self, name)
        return isinstance(value, str) and value not in ("", "all-linear") and not value.isidentifier()

    def _check_entries(self, layers: int) -> None:
        everything = [f"model.layers.{i}.{inside}" for i in range(layers) for inside in LINEAR_PATHS.values()]
        entries = [("target_modules", entry) for entry in _entries(self.target_modules) if entry != "all-linear"]
        entries += [("exclude_modules", entry) for entry in _entries(self.exclude_modules)]
        for name, entry in entries:
            if not any(_fits(entry if self._is_regex(name) else (entry,), path) for path in everything):
                raise InputError(f"lora.{name}: {entry!r} fits no linear layer; there are {', '.join(LINEAR_NAMES)}")
        for name in ("rank_pattern", "alpha_pattern"):
            for pattern in getattr(self, name):
                if not any(_ends_with(pattern, path) for path in everything):
                    raise InputError(f"lora.{name}: {pattern!r} fits no linear layer of the model")
        for layer in _as_tuple(self.layers_to_transform):
            if not 0 <= layer < layers:
                raise InputError(f"lora.layers_to_transform: there is no layer {layer}, the model has {layers}")


def _fits(targets: str | Sequence[str], path: str) -> bool:
    """PEFT's check_target_module_exists: a list matches endings of a path, a string is a regular expression of all of it."""
    if isinstance(targets, str) and not targets.isidentifier():
        return re.fullmatch(targets, path) is not None
    return any(path == target or path.endswith(f".{target}") for target in _as_tuple(targets))


def _ends_with(pattern: str, path: str) -> bool:
    """PEFT's get_pattern_key."""
    return re.match(rf"(.*\.)?({pattern})$", path) is not None


def _by_pattern(patterns: Mapping[str, float], path: str, default: float) -> float:
    return next((value for pattern, value in patterns.items() if _ends_with(pattern, path)), default)


def _entries(targets: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(entry for entry in _as_tuple(targets) if entry)


def _as_tuple(value) -> tuple:
    if value is None:
        return ()
    return (value,) if isinstance(value, str | int) else tuple(value)
