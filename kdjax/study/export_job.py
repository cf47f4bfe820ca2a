"""A trained adapter for other programs."""

from ml_collections import ConfigDict

from kdjax.errors import InputError
from kdjax.student import convert_adapter


def export(config: ConfigDict, workdir: str) -> None:
    """Write the adapter `config.student.adapter` to `config.export.out`; `workdir` is not used.

    Raises:
        InputError: a field is empty, or `kdjax.student.convert_adapter` refuses.
    """
    for field, value in (("student.adapter", config.student.adapter), ("export.out", config.export.out)):
        if not value:
            raise InputError(f"config.{field} is empty; configs/export.py shows the command")
    convert_adapter(config.student.adapter, config.export.format, config.export.out, config.student.source)
    print(f"{config.student.adapter} → {config.export.out}")
