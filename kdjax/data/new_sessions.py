"""Sessions to find bundles for: products as a program or a log file has them, read as far as they can be.

A line is `{"id": "s1", "items": ["B01", "B02"]}`, with the products in a file of their own, or
`{"id": "s1", "products": [{"title": "Espresso machine", "categories": [["Kitchen", "Coffee"]]}, …]}`.

What a nightly log holds is not an error: integer ids, fields that are not known, products that come twice, sessions of one
product. It is read, and counted. A line that cannot be read has its reason beside its id.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdjax.data.files import one_line, read_text
from kdjax.data.sessions import CategoryPath, Session
from kdjax.errors import InputError

PRODUCT_FIELDS = ("id", "title", "categories")
SESSION_FIELDS = ("id", "items", "products")


@dataclass(frozen=True)
class NewSession:
    """A line: its session, or the reason why there is none."""

    id: str
    session: Session | None
    error: str = ""


@dataclass
class NewSessionReader:
    """Reads lines of sessions; `notes` counts what was read although it is not in the form above.

    Args:
        items_path: the products by id, `{"id": "B01", "title": …, "categories": …}` a line; None where sessions hold
            their products themselves.
        strict: raise InputError for a line that is not in the form above.
    """

    items_path: Path | None = None
    strict: bool = False
    notes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._products: dict[str, Mapping] = {}
        if self.items_path is None:
            return
        for line, text in enumerate(read_text(self.items_path).split("\n"), start=1):
            if not text.strip():
                continue
            where = f"{self.items_path}, line {line}"
            try:
                product = self._object(text, PRODUCT_FIELDS)
                id = self._id(product.get("id"))
                check_product(product)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
            if id in self._products:
                raise InputError(f"{where}: the id {id!r} is in the file twice; a product has one line")
            self._products[id] = product
        if not self._products:
            raise InputError(f"{self.items_path}: the file has no products")

    def read(self, lines: Iterable[str], name: str) -> Iterator[NewSession]:
        """A NewSession per line that is not blank; `name` is what errors call the lines' file."""
        for line, text in enumerate(lines, start=1):
            if not text.strip():
                continue
            id = f"line {line}"
            try:
                values = self._object(text, SESSION_FIELDS)
                id = self._id(values["id"]) if "id" in values else id
                yield NewSession(id, self._session(id, values))
            except InputError as error:
                if self.strict:
                    raise InputError(f"{name}, line {line}: {error}") from error
                self.notes["lines that cannot be read"] += 1
                yield NewSession(id, None, f"line {line}: {error}")

    def _object(self, text: str, known: Sequence[str]) -> dict[str, Any]:
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"this is not JSON ({error})") from error
        if not isinstance(values, dict):
            raise InputError("a line must be a JSON object, {…}")
        if unknown := [name for name in values if name not in known]:
            self._note("unknown fields left out", f"unknown field {unknown[0]!r}; known are {', '.join(known)}")
        return values

    def _session(self, id: str, values: Mapping) -> Session:
        if ("items" in values) == ("products" in values):
            raise InputError("a session has either 'items' (ids) or 'products' (objects with a title)")
        listed = values.get("items", values.get("products"))
        if not isinstance(listed, list):
            raise InputError(f"{'items' if 'items' in values else 'products'} is not a list")
        if "items" in values:
            ids = [self._id(item) for item in listed]
            distinct = list(dict.fromkeys(ids))
            if len(distinct) < len(ids):
                self._note("sessions with a repeated product", f"the product {_repeated(ids)!r} is named twice")
            if unknown := [item for item in distinct if item not in self._products]:
                raise InputError(f"the product {unknown[0]!r} is not in {self.items_path or 'a file: name items_file'}")
            listed, names = [self._products[item] for item in distinct], distinct
        else:
            for product in listed:
                if isinstance(product, dict) and not product.keys() <= {*PRODUCT_FIELDS}:
                    unknown = sorted(product.keys() - {*PRODUCT_FIELDS})
                    self._note("unknown fields left out", f"unknown field {unknown[0]!r} of a product")
            names = [
                self._id(product["id"]) if isinstance(product, dict) and "id" in product else str(number)
                for number, product in enumerate(listed, start=1)
            ]
        if len(listed) < 2:
            self._note("sessions of fewer than two products", f"a session of {len(listed)} products has no bundle")
        return session_of_products(listed, id, names)

    def _id(self, value: object) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            self._note("integer ids read as text", f"the id {value} is not a text; write it in quotes")
            return str(value)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{json.dumps(value)[:80]} is not an id (a text or a whole number)")
        return value

    def _note(self, what: str, error: str) -> None:
        if self.strict:
            raise InputError(error)
        self.notes[what] += 1


def session_of_products(products: Sequence[Mapping], id: str = "", names: Sequence[str] = ()) -> Session:
    """A session of products, each with a "title" and perhaps "categories": paths, from the root to the leaf, or one path.

    Args:
        products: in the order in which positions count.
        id: of the session.
        names: the products' ids; numbers from 1 where they have none.

    Raises:
        InputError: a product is not in this form; it names the product by its number, from 1.
    """
    titles, categories = [], []
    for number, product in enumerate(products, start=1):
        try:
            title, paths = check_product(product)
        except InputError as error:
            raise InputError(f"product {number}: {error}") from error
        titles.append(title)
        categories.append(paths)
    items = tuple(names) or tuple(str(number) for number in range(1, len(products) + 1))
    return Session(id, items, tuple(titles), tuple(categories))


def check_product(product: object) -> tuple[str, tuple[CategoryPath, ...]]:
    """Title and category paths of a product. Raises InputError where it is not in the form of `session_of_products`."""
    if not isinstance(product, Mapping):
        raise InputError(f'{str(product)[:80]!r} is not an object with a title, as {{"title": "Espresso machine"}}')
    title = product.get("title")
    if not isinstance(title, str) or not one_line(title):
        raise InputError(f"its title is {title!r}; a title is a text")
    if any("\ud800" <= character <= "\udfff" for character in title):
        raise InputError("its title holds half of a surrogate pair, which no UTF-8 text has")
    paths = product.get("categories") or ()
    if not isinstance(paths, list | tuple):
        raise InputError(f"its categories are {str(paths)[:80]!r}; write paths, as [['Kitchen', 'Coffee']]")
    if all(isinstance(path, str) for path in paths):
        paths = [paths] if paths else []
    for path in paths:
        if not isinstance(path, list | tuple) or not path or not all(isinstance(name, str) for name in path):
            raise InputError(f"its category path {str(path)[:80]!r} is not a list of texts")
    return one_line(title), tuple(tuple(map(one_line, path)) for path in paths)


def _repeated(ids: Sequence[str]) -> str:
    return next(id for place, id in enumerate(ids) if id in ids[:place])
