"""The one door to data: a source and a name give a domain."""

from kdjax.data.bundlerec import load_bundlerec
from kdjax.data.demo import load_demo
from kdjax.data.jsonl import load_jsonl
from kdjax.data.sessions import Domain
from kdjax.errors import InputError

_LOADERS = {"bundlerec": load_bundlerec, "jsonl": load_jsonl, "demo": load_demo}


def load_domain(source: str, root: str, name: str) -> Domain:
    """Read one domain and split it: the same files give the same `Domain.digest`.

    Args:
        source: "bundlerec" (the CSV files of the public bundle data, `kdjax/data/bundlerec.py`), "jsonl" (one's own data,
            `kdjax/data/jsonl.py`) or "demo" (synthetic, `kdjax/data/demo.py`).
        root: the folder that holds the folder `name`; "" for "demo".
        name: the domain's name, which `Domain.name` repeats.

    Raises:
        InputError: an unknown source, or a file that cannot be used; it names the file and the row.
    """
    if source not in _LOADERS:
        raise InputError(f"data.source: there is no source '{source}'; valid are {', '.join(_LOADERS)}")
    return _LOADERS[source](root, name)
