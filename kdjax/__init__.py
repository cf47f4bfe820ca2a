"""Distil what a large language model knows about product bundles into a small JAX student.

    from kdjax import Bundler
    bundler = Bundler.load("runs/…/adapter")
    bundler.bundles([{"title": "Espresso machine"}, {"title": "Garden hose"}, {"title": "Burr grinder"}])

Names are imported when they are used: `import kdjax` loads neither JAX nor anything else.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdjax.data import load_domain
    from kdjax.evaluation import score
    from kdjax.student import load_student
    from kdjax.study.bundler import Answer, Bundle, Bundler
    from kdjax.study.python import distil

__all__ = ["Answer", "Bundle", "Bundler", "distil", "load_domain", "load_student", "score"]

_HOMES = {
    "Answer": "kdjax.study.bundler",
    "Bundle": "kdjax.study.bundler",
    "Bundler": "kdjax.study.bundler",
    "distil": "kdjax.study.python",
    "load_domain": "kdjax.data",
    "load_student": "kdjax.student",
    "score": "kdjax.evaluation",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("kdjax")
    if name not in _HOMES:
        raise AttributeError(f"module 'kdjax' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
