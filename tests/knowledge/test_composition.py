import pytest

from kdjax.errors import InputError
from kdjax.knowledge import Card, knowledge_text


def cards(format, *texts):
    return [Card(format, "demo", text, ("s",), (), 1, 1) for text in texts]


def test_patterns_then_rules_and_no_thoughts():
    text = knowledge_text(
        {
            "rules": cards("rules", "Cables connect.", "Tea needs a pot.", "Cables connect."),
            "thoughts": cards("thoughts", "A secret."),
            "patterns": cards("patterns", "2 × Cases", "Cases + Screens"),
        }
    )
    assert text == (
        "Often bundled together:\n- 2 × Cases\n- Cases + Screens\n\nRules:\n1. Cables connect.\n2. Tea needs a pot."
    )


def test_nothing_is_the_empty_text():
    assert knowledge_text({}) == ""
    assert knowledge_text({"patterns": [], "rules": [], "thoughts": cards("thoughts", "A secret.")}) == ""


def test_an_unknown_format_is_an_error():
    with pytest.raises(InputError, match='"rule".*patterns, rules, thoughts'):
        knowledge_text({"rule": []})
