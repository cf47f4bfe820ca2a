"""The demo domain: the same bytes everywhere, honest about what it is, learnable and not given away."""

import json
import os
import subprocess
import sys
from collections import Counter
from importlib.resources import files

import pytest

from kdjax.data import leaf_category, load_domain
from kdjax.data.deduplicate import deduplicate
from kdjax.data.split import SPLITS
from kdjax.errors import InputError

CATALOGUE = json.loads(files("kdjax.data").joinpath("demo_catalogue.json").read_text())
WORDINGS = {wording: number for number, intent in enumerate(CATALOGUE["intents"]) for wording in intent["wordings"]}


@pytest.fixture(scope="module")
def demo():
    return load_domain("demo", "", "demo")


@pytest.fixture(scope="module")
def sessions(demo):
    return [session for part in demo.splits.values() for session in part]


def test_the_same_bytes_in_every_process(demo):
    code = "from kdjax.data import load_domain; print(load_domain('demo', '', 'demo').digest)"
    for seed in ("0", "1"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
        assert run.stdout.strip() == demo.digest


def test_it_says_what_it_is(demo):
    assert demo.synthetic and demo.source == "demo" and demo.name == "demo"


@pytest.mark.parametrize("root, name", [("data", "demo"), ("", "electronic")])
def test_real_data_is_not_replaced_by_the_demo_in_silence(root, name):
    with pytest.raises(InputError, match=f"data.source='demo' .* {name!r} are named; set data.source"):
        load_domain("demo", root, name)


def test_counts(demo, sessions):
    assert tuple(demo.splits) == SPLITS and [len(part) for part in demo.splits.values()] == [160, 40, 40]
    titles = {item: title for s in sessions for item, title in zip(s.items, s.titles)}
    assert len(titles) >= 300 and len(set(titles.values())) > 0.99 * len(titles)
    paths = {path for s in sessions for (path,) in s.categories}
    assert len(paths) == len({path[-1] for path in paths}) == 40 and {len(path) for path in paths} == {3}
    assert len({path[0] for path in paths}) == 6
    assert {len(s) for s in sessions} == set(range(3, 9)) and {len(s.bundles) for s in sessions} == {1, 2, 3}


def test_every_session_is_whole(sessions):
    assert len({s.id for s in sessions}) == len(sessions)
    for s in sessions:
        assert len(s.items) == len(s.titles) == len(s.categories) == len(set(s.items))
        assert all(list(b) == sorted(set(b)) and len(b) >= 2 and b[-1] < len(s) for b in s.bundles)
        assert deduplicate(s)[0] == s
        assert len(s.intents) == len(s.bundles) and all(3 <= len(intent.split()) <= 5 for intent in s.intents)
        assert all(3 <= len(title.split()) <= 6 and title.isascii() for title in s.titles)


def test_no_two_sessions_share_an_item_set(sessions):
    assert len({frozenset(s.items) for s in sessions}) == len(sessions)


def test_bundles_are_complements_and_alternatives(sessions):
    kinds = Counter()
    for s in sessions:
        for bundle, intent in zip(s.bundles, s.intents):
            leaves = [leaf_category(s.categories[position]) for position in bundle]
            if intent in WORDINGS:
                assert len(set(leaves)) == len(leaves)
                assert set(leaves) <= set(CATALOGUE["intents"][WORDINGS[intent]]["categories"])
                kinds["complements"] += 1
            else:
                assert len(set(leaves)) == 1 and leaves[0].lower() in intent and len(bundle) in (2, 3)
                kinds["alternatives"] += 1
    assert min(kinds.values()) > 0.35 * kinds.total()


def test_there_are_distractors_and_overlaps(sessions):
    n_items = sum(len(s) for s in sessions)
    n_bundled = sum(len({position for bundle in s.bundles for position in bundle}) for s in sessions)
    assert 0.6 < n_bundled / n_items < 0.8
    assert sum(sum(map(len, s.bundles)) > len(set().union(*s.bundles)) for s in sessions) >= 20


def test_an_intent_comes_often_in_training_with_other_products(demo):
    products: dict[int, list[set]] = {}
    for s in demo.splits["train"]:
        for bundle, intent in zip(s.bundles, s.intents):
            if intent in WORDINGS:
                products.setdefault(WORDINGS[intent], []).append({s.items[position] for position in bundle})
    assert len(products) == len(CATALOGUE["intents"])
    assert all(len(sets) >= 4 and len(set.union(*sets)) >= 6 for sets in products.values())


def test_places_give_nothing_away(sessions):
    share = Counter(position / (len(s) - 1) < 0.5 for s in sessions for bundle in s.bundles for position in bundle)
    every = Counter(position / (len(s) - 1) < 0.5 for s in sessions for position in range(len(s)))
    assert abs(share[True] / share.total() - every[True] / every.total()) < 0.05


def test_titles_do_not_simply_name_the_category(sessions):
    titles = {
        item: (title, paths[0][-1]) for s in sessions for item, title, paths in zip(s.items, s.titles, s.categories)
    }
    named = [any(word.lower().rstrip("s") in title.lower() for word in leaf.split()) for title, leaf in titles.values()]
    assert 0.3 < sum(named) / len(named) < 0.85
