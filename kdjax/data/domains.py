"""The one door to data: a source and a name give a domain."""

from kdjax.data.bundlerec import load_bundlerec
from kdjax.data.demo import load_demo
from kdjax.data.journey import load_journey
from kdjax.data.jsonl import load_jsonl
from kdjax.data.sessions import Domain
from kdjax.errors import InputError

DATA_SOURCES = {"bundlerec": load_bundlerec, "jsonl": load_jsonl, "demo": load_demo, "completejourney": load_journey}


def load_domain(source: str, root: str, name: str) -> Domain:
    """Read one domain and split it: the same files give the same `Domain.digest`.

    Args:
        source: "bundlerec" (the CSV files of the public bundle data, `kdjax/data/bundlerec.py`), "jsonl" (one's own data,
            `kdjax/data/jsonl.py`), "demo" (synthetic, `kdjax/data/demo.py`) or "completejourney" (grocery baskets without
            annotated bundles, `kdjax/data/journey.py`).
        root: the folder that holds the folder `name`; "" for the last two.
        name: the domain's name, which `Domain.name` repeats.

    Raises:
        InputError: an unknown source, or a file that cannot be used; it names the file and the row.
    """
    if source not in DATA_SOURCES:
        raise InputError(f"data.source: there is no source '{source}'; valid are {', '.join(DATA_SOURCES)}")
    return DATA_SOURCES[source](root, name)


def load_annotated(source: str, root: str, name: str) -> Domain:
    """`load_domain` for work that learns from bundles or scores them; an InputError if no session has one."""
    domain = load_domain(source, root, name)
    if not domain.annotated:
        raise InputError(
            f"domain {name} (data.source={source!r}) has no annotated bundles, so nothing can be trained or scored on it; use it "
            "to generate bundles, to mine patterns or to measure throughput"
        )
    return domain
