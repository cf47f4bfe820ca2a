"""Everything about a run that can be checked before any work, and what was read on the way."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from kdjax.data import Domain
from kdjax.sources import Tokenizer, load_tokenizer, resolve
from kdjax.student import DecoderConfig, check_student
from kdjax.study import examples as asking
from kdjax.study.distil import Cards, check_teacher, without_teacher
from kdjax.study.export import load_adapter_head
from kdjax.study.settings import student_settings


@dataclass(frozen=True)
class Prepared:
    """A run that nothing known speaks against. `ready` are the cards that take no teacher, from all training sessions."""

    config: ConfigDict
    domains: Mapping[str, Domain]
    tokenizer: Tokenizer
    shape: DecoderConfig
    ready: Mapping[str, Cards]

    def count_tokens(self, text: str) -> int:
        """Tokens of the student."""
        return len(self.tokenizer.encode(text))


def prepare(config: ConfigDict, folder: Path, domains: Mapping[str, Domain]) -> Prepared:
    """Read what a run starts from, without weights, and check all of it. Writes nothing.

    Raises:
        InputError: something in the config, the models or the workdir cannot be used.
    """
    tokenizer = load_tokenizer(resolve(config.student.source))
    if config.student.answer == "pairs":  # first, since the adapter's layers follow from it
        asking.check_layers(config, check_student(config.student.source, dtype=config.student.dtype))
    shape = check_student(config.student.source, **student_settings(config))
    if config.student.answer == "pairs" and config.student.adapter:
        form = asking.product_form(config)
        load_adapter_head(Path(config.student.adapter), form, shape.hidden_size, config.student.pair_layers)
    ready = without_teacher(
        config, domains, domains, folder, lambda text: len(tokenizer.encode(text)), lambda text: None
    )
    asking.check_before_distilling(config, tokenizer, domains, ready, shape.max_position_embeddings)
    check_teacher(config, ready)
    return Prepared(config, domains, tokenizer, shape, ready)
