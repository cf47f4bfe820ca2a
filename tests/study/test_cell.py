"""What runs have in common, and what none of them may know."""

import json

import pytest

from configs import sft_rules
from kdjax.data import load_domain
from kdjax.errors import InputError
from kdjax.study import run


@pytest.fixture
def config():
    found = sft_rules.get_config("smoke")
    found.knowledge.update(limit=2, keep="validated")
    found.eval.update(orders=1, max_sessions=3)
    found.train.max_steps = 0
    return found


def test_rules_are_tried_once_for_runs_that_try_the_same(config, tmp_path, capsys):
    (tmp_path / "shared").mkdir()
    for name in ("one", "other"):
        run(config, tmp_path / name, tmp_path / "shared")
        said = capsys.readouterr().out
        assert said.count("validation: as in an earlier run") == (3 if name == "other" else 0)  # with none, and each
        assert said.count("test: as in an earlier run") == (name == "other")
    one, other = (tmp_path / name / "knowledge" / "demo" / "rules.jsonl" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_knowledge_of_another_split_ends_the_run(config, split, tmp_path):
    """A card on disk is not made again, so one from elsewhere would be shown if nobody looked where it comes from."""
    config.knowledge.keep = "all"
    run(config, tmp_path)
    path = tmp_path / "knowledge" / "demo" / "rules.jsonl"
    first, *others = path.read_text().splitlines()
    card, strange = json.loads(first), load_domain("demo", "", "demo").splits[split][0].id
    path.write_text("\n".join([json.dumps(card | {"sessions": [*card["sessions"], strange]}), *others]) + "\n")
    for name in ("metrics.json", "predictions.jsonl"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match=rf"{card['id']}.*{strange}"):
        run(config, tmp_path)
    assert not (tmp_path / "predictions.jsonl").exists()
