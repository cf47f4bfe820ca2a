"""The data types that every package uses: sessions with their bundles, and the domain they belong to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

CategoryPath = tuple[str, ...]  # from the root to the leaf: ("Electronics", "Cables", "HDMI Cables")


@dataclass(frozen=True)
class Session:
    """The products that one shopper looked at, and the bundles that were annotated among them.

    `items`, `titles` and `categories` are parallel. `categories[i]` holds the category paths of product i (possibly none).
    `bundles` are 0-based positions into `items`, ascending; `intents` is parallel to `bundles` ("" where none was written).
    """

    id: str
    items: tuple[str, ...]
    titles: tuple[str, ...]
    categories: tuple[tuple[CategoryPath, ...], ...]
    bundles: tuple[tuple[int, ...], ...] = ()
    intents: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Domain:
    """A named set of sessions with a fixed split.

    `left_out` counts what was read but not kept, by reason. `digest` is the sha256 of all that was kept: two domains with
    the same digest are the same data. `synthetic` is True for generated data, and every output must say so. `users`: session
    id → shopper, if the data has it; no model sees it. `license`: what the data may be used under, by the Hugging Face hub's
    name for it ("apache-2.0"); "" where its publishers state none. `without_bundles` are sessions in which annotators found no
    bundle: no split has them, and they serve to calibrate the probability of that alone.
    """

    name: str
    source: str
    splits: Mapping[str, list[Session]]  # "train", "validation", "test"
    digest: str
    left_out: Mapping[str, int] = field(default_factory=dict)
    synthetic: bool = False
    users: Mapping[str, str] = field(default_factory=dict)
    license: str = ""
    without_bundles: tuple[Session, ...] = ()

    @property
    def annotated(self) -> bool:
        """Whether any session has a bundle."""
        return any(session.bundles for sessions in self.splits.values() for session in sessions)


def reorder(session: Session, order: Sequence[int]) -> Session:
    """The same session with its products in another order: product `order[i]` comes at position i."""
    place = {product: i for i, product in enumerate(order)}
    if sorted(place) != list(range(len(session))) or len(order) != len(session):
        raise ValueError(f"{order} is not an order of {len(session)} products")

    def reordered(values: tuple) -> tuple:
        return tuple(values[product] for product in order)

    return replace(
        session,
        items=reordered(session.items),
        titles=reordered(session.titles),
        categories=reordered(session.categories),
        bundles=tuple(tuple(sorted(place[product] for product in bundle)) for bundle in session.bundles),
    )


def leaf_category(paths: tuple[CategoryPath, ...]) -> str | None:
    """The leaf of the longest category path (the first of equals), the level the paper's patterns use; None without a category."""
    longest = max(paths, key=len, default=())
    return longest[-1] if longest else None


def category_names(paths: tuple[CategoryPath, ...]) -> tuple[str, ...]:
    """The distinct names on all paths, in their order, without the first of each path that has more than one."""
    return tuple(dict.fromkeys(name for path in paths for name in path[1:] or path))
