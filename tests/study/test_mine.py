"""The job that mines patterns: of bundles where they are annotated, of whole sessions where they are not."""

from collections import Counter
from dataclasses import replace
from itertools import combinations_with_replacement

import pytest

from configs import patterns
from kdjax.data import DATA_SOURCES, leaf_category, load_domain
from kdjax.knowledge import mine_patterns
from kdjax.reporting import read_jsonl
from kdjax.study import mine


@pytest.fixture
def config():
    return patterns.get_config("smoke")


def test_of_bundles_it_is_the_knowledge_format(config, tmp_path, capsys):
    mine(config, str(tmp_path))
    train = load_domain("demo", "", "demo").splits["train"]
    cards = mine_patterns(train, "demo", min_count=config.knowledge.min_count, limit=100, count_tokens=len)
    rows = read_jsonl(tmp_path / "patterns" / "demo.jsonl")
    assert [(row["pattern"], row["support"]) for row in rows] == [(card.text, card.support) for card in cards]
    assert rows[0]["share"] == rows[0]["support"] / sum(len(session.bundles) for session in train)
    assert " bundles in " in capsys.readouterr().out


def test_without_bundles_whole_sessions_take_their_place(config, tmp_path, monkeypatch, capsys):
    demo = load_domain("demo", "", "demo")
    bare = {part: [replace(session, bundles=(), intents=()) for session in of] for part, of in demo.splits.items()}
    monkeypatch.setitem(DATA_SOURCES, "demo", lambda root, name: replace(demo, splits=bare))
    mine(config, str(tmp_path))
    rows = {row["pattern"]: row for row in read_jsonl(tmp_path / "patterns" / "demo.jsonl")}
    pairs = Counter()  # counted one by one: each pair of categories once per session that has both
    for session in bare["train"]:
        held = Counter(leaf_category(paths) for paths in session.categories)
        for one, other in combinations_with_replacement(sorted(held), 2):
            if one != other:
                pairs[f"{one} + {other}"] += 1
            elif held[one] > 1:
                pairs[f"2 × {one}"] += 1
    common = {pair: count for pair, count in pairs.items() if count >= config.knowledge.min_count}
    found = {name: row["support"] for name, row in rows.items() if row["size"] == 2}
    assert 20 < len(rows) < 100 and found == common
    assert rows[next(iter(found))]["share"] == next(iter(found.values())) / len(bare["train"])
    assert f"of {len(bare['train'])} whole sessions in" in capsys.readouterr().out
