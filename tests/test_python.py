"""`import kdjax`, and a student distilled from Python, in an interpreter of its own."""

import json
import os
import subprocess
import sys

import pytest

import kdjax
from kdjax import distil
from kdjax.errors import InputError

PRODUCTS = [{"title": title} for title in ("Espresso machine", "Garden hose", "Burr grinder", "Hose reel")]
SESSION = {"products": PRODUCTS, "bundles": [[0, 2], [1, 3]]}


def test_the_names_are_there_and_nothing_is_loaded_for_them():
    script = "import sys, kdjax; print(sorted(dir(kdjax)), kdjax.__version__, 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*repr(sorted([*kdjax.__all__, "__version__"])).split(), kdjax.__version__, "False"]
    with pytest.raises(AttributeError, match="has no attribute 'bundler'; it has Answer"):
        _ = kdjax.bundler


def test_a_student_is_distilled_and_answers_without_torch(tmp_path):
    """Twice with the same arguments: the second call only loads what the first left."""
    script = f"""
import sys
from kdjax import distil, load_domain
demo = load_domain("demo", "", "demo")
def told(session):
    products = [{{"title": t, "categories": c}} for t, c in zip(session.titles, session.categories)]
    return {{"products": products, "bundles": session.bundles}}
sessions = [told(s) for s in (*demo.splits["train"][:40], *demo.without_bundles[:12])]
fields = {{"student.pair_layers": 1, "lora.r": 4, "train.max_steps": 2, "train.batch_size": 8, "eval.orders": 1}}
for _ in range(2):
    bundler = distil(sessions, "annotations", "tiny-random", workdir={str(tmp_path)!r}, formats=("patterns",), fields=fields)
print(bundler.many([sessions[0]["products"]]))
print("torch" in sys.modules)
"""
    environment = os.environ | {"KDJAX_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    *_, bundles, torch = done.stdout.splitlines()
    assert bundles.startswith("[[") and torch == "False"
    assert done.stdout.count("run/report.html") == 2 and "finished" in done.stdout
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["no_bundle"]["without"] == 12


# what is wrong: (arguments, what the error says)
WRONG = {
    "no products": ({"sessions": [{"bundles": []}]}, r"sessions\[0\]: 'products' is missing"),
    "a product without a title": (
        {"sessions": [SESSION, {"products": [{"name": "x"}]}]},
        r"sessions\[1\]: product 1: its title is None",
    ),
    "a product twice": (
        {"sessions": [{"products": [PRODUCTS[0]] * 2, "bundles": []}]},
        r"sessions\[0\]: the product 'Espresso machine' is in the session twice",
    ),
    "a position that is not there": (
        {"sessions": [SESSION | {"bundles": [[0, 4]]}]},
        r"sessions\[0\]: the bundle \[0, 4\] names position 4, of 0 to 3",
    ),
    "a title for a position": (
        {"sessions": [SESSION | {"bundles": [["Espresso machine", 1]]}]},
        "names position 'Espresso machine'",
    ),
    "an unknown field": ({"sessions": [SESSION | {"user": 3}]}, r"sessions\[0\]: there is no field 'user'"),
    "an unknown field of the config": (
        {"sessions": [SESSION], "fields": {"train.epoch": 1}},
        r"fields: train.epoch=1 cannot be set",
    ),
    "a section that is not there": ({"sessions": [SESSION], "fields": {"training.epochs": 1}}, "training.epochs=1"),
    "a text for a number": ({"sessions": [SESSION], "fields": {"train.epochs": "two"}}, "train.epochs='two' cannot"),
    "no session": ({"sessions": []}, "items.jsonl"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case, tmp_path):
    arguments, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        distil(**arguments, student="tiny-random", workdir=tmp_path)
    assert not (tmp_path / "run").exists()
