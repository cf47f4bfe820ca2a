"""A person's own data: two files of JSON lines in `root/name/`.

`items.jsonl`, a product a line; `categories` is a list of paths from the root to the leaf and may be left out:

    {"id": "g1", "title": "Norden Coffee Grinder", "categories": [["Kitchen", "Coffee", "Coffee Grinders"]]}
    {"id": "b1", "title": "Velta Dark Roast Beans", "categories": [["Kitchen", "Coffee", "Coffee Beans"]]}
    {"id": "t1", "title": "Tarn Dome Tent"}

`sessions.jsonl`, a session a line, with two or more products (more than ten are fine):

    {"id": "s1", "items": ["g1", "b1", "t1"], "bundles": [["g1", "b1"]], "intents": ["home coffee bar"], "split": "train"}

`bundles` are lists of item ids of the session, `intents` stand beside them ("" where none is known) and may be left out.
`split` ("train", "validation" or "test") is given for all sessions or for none; without it sessions are split 70 / 10 / 20 %
by the order of sha256(id). Bundles are de-duplicated like the public ones. A session without the field `bundles` is left out
and counted. One with `"bundles": []` was annotated and has none: no split has it, and the probability that a session has no
bundle is calibrated with it.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from kdjax.data.categories import check_name, joined_names, joined_reason
from kdjax.data.deduplicate import deduplicate
from kdjax.data.files import domain_folder
from kdjax.data.fingerprint import fingerprint
from kdjax.data.rows import Row, read_rows
from kdjax.data.sessions import CategoryPath, Domain, Session
from kdjax.data.split import SPLITS, hashed_split
from kdjax.data.tables import near_id
from kdjax.errors import InputError

_Products = Mapping[str, tuple[str, tuple[CategoryPath, ...]]]  # item id → title, category paths


def load_jsonl(root: str, name: str) -> Domain:
    """Read the domain in `root/name/`; a fault is an InputError with the file, the line and the field."""
    folder = domain_folder(root, name)
    products = _read_products(folder / "items.jsonl")
    path = folder / "sessions.jsonl"
    rows = _session_rows(path)
    given = [_split(row) for row in rows]
    if any(given) and not all(given):
        missing = next(row for row, part in zip(rows, given) if part is None)
        raise missing.fault("split", "is missing, but other sessions have it; give it for all sessions or for none")

    left_out: Counter[str] = Counter({"sessions without a bundle": 0})
    sessions, parts, without = [], [], []
    for row, part in zip(rows, given):
        session, dropped = deduplicate(_session(row, products))
        left_out.update(dropped)
        if session.bundles:
            sessions.append(session)
            parts.append(part)
        else:
            left_out["sessions without a bundle"] += 1
            if row.values.get("bundles") == []:
                without.append(session)
    if not sessions:
        raise InputError(f"{path}: no session has a bundle; give 'bundles', the lists of item ids that belong together")
    if any(given):
        splits = {split: [session for session, part in zip(sessions, parts) if part == split] for split in SPLITS}
    else:
        splits = hashed_split(sessions)
    return Domain(name, "jsonl", splits, fingerprint(splits), left_out, without_bundles=tuple(without))


def _read_products(path: Path) -> _Products:
    rows = read_rows(path, required=("id", "title"), optional=("categories",))
    products = {row.text("id"): (row.text("title"), _categories(row)) for row in rows}
    if joined := joined_names(category for _, categories in products.values() for category in categories):
        raise InputError(f"{path}, field 'categories': {joined_reason(joined)}")
    return products


def _categories(row: Row) -> tuple[CategoryPath, ...]:
    paths = row.lists("categories")
    try:
        for name in (name for path in paths for name in path):
            check_name(name)
    except ValueError as error:
        raise row.fault("categories", str(error)) from error
    return paths


def _session_rows(path: Path) -> list[Row]:
    return read_rows(path, required=("id", "items"), optional=("bundles", "intents", "split"))


def _split(row: Row) -> str | None:
    part = row.text("split") if "split" in row.values else None
    if part is not None and part not in SPLITS:
        raise row.fault("split", f"is '{part}'; valid are {', '.join(SPLITS)}")
    return part


def _session(row: Row, products: _Products) -> Session:
    items = row.texts("items")
    for item in items:
        if item not in products:
            near = near_id(item, products)
            raise row.fault("items", f"names the item '{item}', which is not among the products{near}")
    _check_set(row, "items", "a session", items)
    bundles = row.lists("bundles")
    place = {item: position for position, item in enumerate(items)}
    for bundle in bundles:
        for item in bundle:
            if item not in place:
                near = near_id(item, place)
                raise row.fault("bundles", f"names the item '{item}', which is not in the session{near}")
        _check_set(row, "bundles", "a bundle", bundle)
    intents = row.texts("intents", blank=True) if "intents" in row.values else ("",) * len(bundles)
    if len(intents) != len(bundles):
        raise row.fault(
            "intents", f"has {len(intents)} entries for {len(bundles)} bundles; give one for each ('' for none)"
        )
    return Session(
        id=row.text("id"),
        items=items,
        titles=tuple(products[item][0] for item in items),
        categories=tuple(products[item][1] for item in items),
        bundles=tuple(tuple(sorted(place[item] for item in bundle)) for bundle in bundles),
        intents=intents,
    )


def _check_set(row: Row, field: str, what: str, items: tuple[str, ...]) -> None:
    if len(items) < 2:
        raise row.fault(field, f"{what} has {len(items)} items; it needs two or more")
    repeated = [item for item, count in Counter(items).items() if count > 1]
    if repeated:
        raise row.fault(field, f"{what} names the item '{repeated[0]}' more than once")
