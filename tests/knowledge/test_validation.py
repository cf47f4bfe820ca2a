from knowledge_helpers import words

from kdjax.knowledge import Card, keep_validated


def rule(text):
    return Card("rules", "demo", text, ("s",), (), 1, words(text), {"parsed": True})


def test_only_cards_that_help_are_kept_with_their_effect():
    scores = {"good": 0.75, "neutral": 0.5, "bad": 0.25}
    asked, lines = [], []

    def evaluate(cards):
        asked.append([card.text for card in cards])
        return scores[cards[0].text] if cards else 0.5

    kept, dropped = keep_validated([rule(text) for text in scores], evaluate, log=lines.append)
    assert [(card.text, card.checks) for card in kept] == [("good", {"parsed": True, "effect": 0.25})]
    assert [(card.text, card.checks["effect"]) for card in dropped] == [("neutral", 0.0), ("bad", -0.25)]
    assert kept[0].id == rule("good").id
    assert asked == [[], ["good"], ["neutral"], ["bad"]]
    assert lines == [
        "validation: +0.2500 kept: good",
        "validation: +0.0000 dropped: neutral",
        "validation: -0.2500 dropped: bad",
    ]


def test_without_cards_nothing_is_evaluated():
    assert keep_validated([], None, log=None) == ([], [])
