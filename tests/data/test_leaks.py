import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.data import Domain, Session, leak_counts, load_domain, prove_sources
from kdjax.errors import InputError


def domain(name: str, **ids: str) -> Domain:
    splits = {
        part: [Session(id, ("a", "b"), ("A", "B"), ((), ())) for id in ids.get(part, "").split()] for part in SPLITS
    }
    return Domain(name, "jsonl", splits, digest="")


SPLITS = ("train", "validation", "test")
DOMAINS = {
    "food": domain("food", train="1 2 3", validation="4", test="5 6"),
    "toys": domain("toys", train="5 6", test="1"),
}


def test_training_sessions_pass_in_their_own_domain():
    assert prove_sources(DOMAINS, [("rule 1", "food", ["1", "3"]), ("demo", "toys", iter(["5"]))]) == 2
    assert prove_sources(DOMAINS, []) == 0


def test_all_offenders_are_listed_with_label_and_ids():
    sources = [
        ("rule 1", "food", ["1", "5", "4"]),
        ("rule 2", "food", ["2"]),
        ("demonstration of 9", "toys", ["1"]),
        ("thought 3", "food", ["77"]),
        ("thought 4", "food", []),
        ("thought 5", "tools", ["1"]),
    ]
    with pytest.raises(InputError) as error:
        prove_sources(DOMAINS, sources)
    assert str(error.value).splitlines() == [
        "5 of 6 sources do not come from training sessions alone:",
        "  rule 1: food sessions 5 (test), 4 (validation)",
        "  demonstration of 9: toys session 1 (test)",
        "  thought 3: food session 77 (unknown)",
        "  thought 4: names no session that it came from",
        "  thought 5: domain 'tools' is not one of food, toys",
    ]


@settings(deadline=None)
@given(st.lists(st.sampled_from("123456"), min_size=1))
def test_it_passes_exactly_where_all_ids_are_training_ids(ids):
    if set(ids) <= set("123"):
        assert prove_sources(DOMAINS, [("card", "food", ids)]) == 1
    else:
        with pytest.raises(InputError, match="card: food"):
            prove_sources(DOMAINS, [("card", "food", ids)])


def test_what_may_leak_is_counted():
    def session(id, *items):
        titles = tuple(f"the very long title of {item}" for item in items)
        return Session(id, items, titles, ((),) * len(items))

    train = [session("1", "a", "b", "c"), session("2", "d", "e")]
    test = [session("3", "a", "b"), session("4", "a", "d", "x", "y"), session("5", "c", "b", "z")]
    longest = session("8", *"ghijklmn")  # of which a test session is a part, though they share less than half of all
    train.append(longest)
    test.append(session("9", "k", "l"))
    splits = {"train": train, "validation": [], "test": test}
    shop = Domain("shop", "jsonl", splits, "", users={"1": "ann", "2": "bob", "3": "eve", "4": "ann"})
    texts = [
        "Bundle THE VERY LONG, title…",
        "Long title of z with mugs.",
        "Long title of a, with mugs.",
        "the very title of a",
    ]
    assert [*leak_counts(shop, texts).values()] == ["1 of 4", "3 of 4", "3 of 4", "1 of 4"]
    assert next(iter(leak_counts(DOMAINS["food"], []).values())) == "unknown"


def test_the_public_data_tells_its_users(bundlerec):
    electronic = load_domain("bundlerec", str(bundlerec), "electronic")
    sessions = [session for split in electronic.splits.values() for session in split]
    assert all(session.id in electronic.users for session in sessions)
