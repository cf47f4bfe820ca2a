"""The demo domain: synthetic sessions, so that the program runs with no data given. It is no benchmark.

`demo_catalogue.json` holds what the shop sells (40 leaf categories, each with attributes and nouns that make titles) and 20
shopping intents with the categories that serve them. A session is drawn like this:

* one to three bundles. A bundle is either a set of *complements* (one product of each of two or more categories of an intent)
  or of *alternatives* (two or three products of one category that are compared). A later bundle may compare a product
  of an earlier one with its alternatives, so bundles overlap; otherwise it has nothing to do with the earlier ones;
* up to three distractors, which are in no bundle. Most have nothing to do with the bundles either, but one in eight is of the
  same category or intent as a product of the session: as in real data, no rule gets everything right;
* all products shuffled.

Beside the splits, 40 sessions have no bundle: two to six products of categories that have nothing to do with each other.

An intent comes up in several training sessions, each time with other products. Alternatives often share a word and complements
rarely do, so title similarity finds some bundles; what goes with what has to be known or learned.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.resources import files
from random import Random

from kdjax.data.fingerprint import fingerprint
from kdjax.data.sessions import CategoryPath, Domain, Session
from kdjax.errors import InputError

SEED = 7  # the first with which every intent occurs at least four times in training
SIZES = {"train": 160, "validation": 40, "test": 40}
MIN_ITEMS, MAX_ITEMS = 3, 8
WITHOUT_BUNDLES = 40
_COMPARISONS = ("choosing between {}", "comparing {} options", "picking the right {}")


@dataclass(frozen=True)
class _Product:
    id: str
    title: str
    path: CategoryPath

    @property
    def category(self) -> str:
        return self.path[-1]


@dataclass(frozen=True)
class _Bundle:
    intent: str
    products: tuple[_Product, ...]


@dataclass(frozen=True)
class _Shop:
    products: dict[str, list[_Product]]  # by leaf category
    intents: list[tuple[list[str], list[str]]]  # wordings, leaf categories
    related: dict[str, set[str]]  # leaf category → itself and all that share an intent with it

    def unrelated(self, present: Iterable[_Product]) -> list[str]:
        """The categories that have nothing to do with any product present, in the catalogue's order."""
        near = set().union(*(self.related[product.category] for product in present))
        return [category for category in self.products if category not in near]


def load_demo(root: str, name: str) -> Domain:
    """The demo domain, always the same. A root, or another name than "demo", means other data: an InputError."""
    if root or name != "demo":
        raise InputError(
            f"data.source='demo' makes the domain 'demo' and reads no files, but root={root!r} and the domain "
            f"{name!r} are named; set data.source to 'bundlerec' or 'jsonl' to read them"
        )
    rng = Random(SEED)
    shop = _open_shop(rng)
    sessions: dict[frozenset[str], Session] = {}  # by item set: no two sessions, and so no two splits, share one
    while len(sessions) < sum(SIZES.values()):
        session = _draw_session(rng, shop, id=f"d{len(sessions) + 1:03d}")
        if MIN_ITEMS <= len(session) <= MAX_ITEMS:
            sessions.setdefault(frozenset(session.items), session)
    drawn = iter(sessions.values())
    splits = {part: [next(drawn) for _ in range(size)] for part, size in SIZES.items()}
    without = tuple(_draw_unrelated(rng, shop, id=f"n{number:03d}") for number in range(1, WITHOUT_BUNDLES + 1))
    return Domain(
        name,
        "demo",
        splits,
        fingerprint(splits),
        synthetic=True,
        license="apache-2.0",
        without_bundles=without,
    )


def _open_shop(rng: Random) -> _Shop:
    catalogue = json.loads(files("kdjax.data").joinpath("demo_catalogue.json").read_text(encoding="utf-8"))
    products: dict[str, list[_Product]] = {}
    for category in catalogue["categories"]:
        path = tuple(category["path"])
        usual, *synonyms = (
            [f"{attribute} {noun}" for attribute in category["attributes"]] for noun in category["nouns"]
        )
        names = usual + rng.sample([name for names in synonyms for name in names], len(usual))
        first = sum(map(len, products.values())) + 1
        products[path[-1]] = [
            _Product(f"p{number:03d}", f"{rng.choice(catalogue['brands'])} {name}", path)
            for number, name in enumerate(names, start=first)
        ]
    intents = [(intent["wordings"], intent["categories"]) for intent in catalogue["intents"]]
    related = {category: {category} for category in products}
    for _, categories in intents:
        for category in categories:
            related[category].update(categories)
    return _Shop(products, intents, related)


def _draw_session(rng: Random, shop: _Shop, id: str) -> Session:
    bundles: list[_Bundle] = []
    for _ in range(rng.choices((1, 2, 3), weights=(50, 37, 13))[0]):
        bundles.append(_draw_bundle(rng, shop, bundles))
    products = list(dict.fromkeys(product for bundle in bundles for product in bundle.products))
    for _ in range(rng.choices((0, 1, 2, 3), weights=(30, 30, 25, 15))[0]):
        products.append(_draw_distractor(rng, shop, products))
    rng.shuffle(products)
    place = {product: position for position, product in enumerate(products)}
    placed = sorted((tuple(sorted(place[product] for product in bundle.products)), bundle.intent) for bundle in bundles)
    found, intents = tuple(positions for positions, _ in placed), tuple(intent for _, intent in placed)
    return replace(_session(id, products), bundles=found, intents=intents)


def _draw_unrelated(rng: Random, shop: _Shop, id: str) -> Session:
    products: list[_Product] = []
    for _ in range(rng.randint(2, 6)):
        products.append(rng.choice(shop.products[rng.choice(shop.unrelated(products))]))
    return _session(id, products)


def _session(id: str, products: list[_Product]) -> Session:
    items, titles = tuple(product.id for product in products), tuple(product.title for product in products)
    return Session(id, items, titles, categories=tuple((product.path,) for product in products))


def _draw_bundle(rng: Random, shop: _Shop, earlier: list[_Bundle]) -> _Bundle:
    present = [product for bundle in earlier for product in bundle.products]
    mixed = [bundle for bundle in earlier if len({product.category for product in bundle.products}) > 1]
    once = [product for bundle in mixed for product in bundle.products if _alone(product, present)]
    if once and rng.random() < 0.4:
        return _compare(rng, shop, rng.choice(once))
    free = shop.unrelated(present)
    intents = [intent for intent in shop.intents if set(intent[1]) <= set(free)]
    if intents and rng.random() < 0.6:
        wordings, categories = rng.choice(intents)
        served = rng.sample(categories, rng.randint(2, len(categories)))
        return _Bundle(rng.choice(wordings), tuple(rng.choice(shop.products[category]) for category in served))
    return _compare(rng, shop, rng.choice(shop.products[rng.choice(free)]))


def _alone(product: _Product, present: list[_Product]) -> bool:
    return sum(other.category == product.category for other in present) == 1


def _compare(rng: Random, shop: _Shop, product: _Product) -> _Bundle:
    """`product` and one or two others of its category."""
    others = [other for other in shop.products[product.category] if other != product]
    compared = rng.sample(others, rng.choices((1, 2), weights=(60, 40))[0])
    return _Bundle(rng.choice(_COMPARISONS).format(product.category.lower()), (product, *compared))


def _draw_distractor(rng: Random, shop: _Shop, present: list[_Product]) -> _Product:
    unrelated = shop.unrelated(present)
    related = [category for category in shop.products if category not in unrelated]
    category = rng.choice(related if rng.random() < 1 / 8 else unrelated)
    return rng.choice([product for product in shop.products[category] if product not in present])
