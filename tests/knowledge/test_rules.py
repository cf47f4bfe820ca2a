import random

from knowledge_helpers import make_session, words

from kdjax.knowledge import RuleCandidate, annotation_rule_cards, merge_rules
from kdjax.teacher import annotation_rules

CANDIDATES = [
    RuleCandidate("Cables go together with the device that they connect.", "s1", ("k1", "k2")),
    RuleCandidate("Cables go together with the device they connect.", "s2", ("k3",)),
    RuleCandidate("cables go together with the device they connect", "s2", ("k3",)),
    RuleCandidate("Do not bundle cables together with the device they connect.", "s3", ("k4",)),
    RuleCandidate("Products of one brand are often alternatives.", "s4", ("k5",)),
    RuleCandidate("Kitchen tools belong with the food they prepare.", "s4", ("k5",)),
]
LOG = [].append


def merge(candidates=CANDIDATES, limit=9, max_tokens=99):
    return merge_rules(candidates, "demo", limit=limit, max_tokens=max_tokens, count_tokens=words, log=LOG)


def test_near_equal_rules_become_one_card_in_the_shortest_wording():
    first, *others = merge()
    assert (first.text, first.support) == ("cables go together with the device they connect", 2)
    assert (first.sessions, first.calls, first.tokens) == (("s1", "s2"), ("k1", "k2", "k3"), 8)
    assert [card.text for card in others] == sorted(rule.text for rule in CANDIDATES[3:])
    assert all(card.support == 1 for card in others)


def test_a_rule_and_its_negation_stay_apart():
    rules = [
        f"{verb} products of one brand that a shopper uses in the same room." for verb in ("Bundle", "Never bundle")
    ]
    cards = merge([RuleCandidate(rule, "s", ()) for rule in rules])
    assert {card.text for card in cards} == set(rules)


def test_the_order_of_candidates_plays_no_part():
    shuffled = random.Random(0).sample(CANDIDATES, len(CANDIDATES))
    assert merge(shuffled) == merge()


def test_limit_and_token_budget():
    assert merge(limit=2) == merge()[:2]
    assert [card.tokens for card in merge()] == [8, 10, 8, 7]
    assert [card.tokens for card in merge(max_tokens=19)] == [8, 8]  # the 10 do not fit, the 8 after them do
    assert merge(max_tokens=9) == merge()[3:]
    assert merge([]) == []


def test_annotation_rules_become_cards_without_calls():
    titles, leaves = ("Phone", "Case", "Film"), ("Phones", "Cases", "Films")
    sessions = [make_session(f"s{number}", titles, [(1, 2)], leaves) for number in range(4)]
    rules = annotation_rules(sessions, 3)
    cards = annotation_rule_cards(sessions, "demo", limit=3, max_tokens=99, count_tokens=words, log=LOG)
    assert [(card.text, card.support, card.sessions) for card in cards] == [tuple(rule) for rule in rules]
    assert cards
    assert all(card.format == "rules" and card.calls == () and card.tokens == words(card.text) for card in cards)
    assert annotation_rule_cards(sessions, "demo", limit=3, max_tokens=0, count_tokens=words, log=LOG) == []
