import random

import pytest

from kdjax.data import Session, load_domain
from kdjax.teacher import annotation_rules, annotation_thought


def session(id: str, categories: str, *bundles: tuple[int, ...], intents: tuple[str, ...] | None = None) -> Session:
    """A session with a product per letter, of the category with that letter ('-': no category)."""
    return Session(
        id=id,
        items=tuple(f"{id}{n}" for n in range(len(categories))),
        titles=tuple(categories),
        categories=tuple(() if letter == "-" else (("All", letter),) for letter in categories),
        bundles=bundles,
        intents=intents or ("",) * len(bundles),
    )


# A and B: 3 sessions share them, all bundle them. A and C: 3 share them, none bundles them. B and C: 2 of 4.
SESSIONS = [
    session("s1", "ABC", (0, 1)),
    session("s2", "ABC", (0, 1)),
    session("s3", "ABC", (0, 1), (1, 2)),
    session("s4", "BC", (0, 1)),
]


def test_rules_worked_out_by_hand():
    # 5 of the 10 pairs are bundled: A-B exceeds by 3 - 1.5, A-C falls short by 1.5, B-C does neither.
    assert annotation_rules(SESSIONS, 10) == [
        ("Most bundles hold two products.", 4, ("s1", "s2", "s3", "s4")),
        ("Most sessions hold one bundle.", 3, ("s1", "s2", "s4")),
        ('Bundle "A" with "B".', 3, ("s1", "s2", "s3")),
        ('Do not bundle "A" with "C".', 3, ("s1", "s2", "s3")),
    ]
    assert (
        len(annotation_rules(SESSIONS, 3)) == 3
        and annotation_rules(SESSIONS, 0) == []
        and annotation_rules([], 5) == []
    )


def test_pairs_of_one_category_are_measured_against_their_like():
    sessions = [session(f"a{n}", "AA", (0, 1)) for n in range(3)] + [
        session("b", "BB"),
        session("c", "AACD", (0, 1), (2, 3)),
    ]
    rules = annotation_rules(sessions, 10)
    assert ("Products of one category usually belong together.", 4, ("a0", "a1", "a2", "c")) in rules
    assert not any('"B"' in rule.text or '"D"' in rule.text for rule in rules)  # seen once: no rule


def test_products_left_out_by_most_sessions():
    sessions = [session("a", "A--", (0, 1)), session("b", "A-", (0, 1)), session("c", "A--", (1, 2))]
    assert ("Most sessions hold products that fit no bundle: leave them out.", 2, ("a", "c")) in annotation_rules(
        sessions, 9
    )


def test_rules_do_not_depend_on_the_order_of_sessions():
    domain = load_domain("demo", "", "demo")
    shuffled = list(domain.splits["train"])
    random.Random(0).shuffle(shuffled)
    first, second = (annotation_rules(sessions, 30) for sessions in (domain.splits["train"], shuffled))
    assert [(rule.text, rule.support, set(rule.session_ids)) for rule in first] == [
        (rule.text, rule.support, set(rule.session_ids)) for rule in second
    ]


@pytest.mark.parametrize("name", ["electronic", "clothing"])
def test_rules_of_real_domains(bundlerec, name):
    sessions = load_domain("bundlerec", str(bundlerec), name).splits["train"]
    rules = annotation_rules(sessions, 30)
    known = {session.id for session in sessions}
    assert len(rules) == 30 == len({rule.text for rule in rules})
    assert all(rule.support == len(set(rule.session_ids)) >= 2 and known.issuperset(rule.session_ids) for rule in rules)


def test_a_thought_names_every_product_once_per_use():
    thinking = session("s", "ABCDEF", (2, 4, 5), (0, 2), intents=("a  quiet\nevening.", "phone protection"))
    assert annotation_thought(thinking) == (
        'Products 1 and 3 serve "phone protection". Products 3, 5 and 6 serve "a quiet evening". '
        "Products 2 and 4 fit no bundle."
    )
    assert (
        annotation_thought(session("s", "ABC", (0, 1))) == "Products 1 and 2 belong together. Product 3 fits no bundle."
    )
