"""The proof that what a student was taught with comes from training sessions alone, and counts of what may leak all the same."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from kdjax.data.sessions import Domain
from kdjax.errors import InputError


def prove_sources(domains: Mapping[str, Domain], sources: Iterable[tuple[str, str, Iterable[str]]]) -> int:
    """Check where every knowledge card, demonstration and training example came from; return how many were checked.

    Args:
        domains: the domains of the run by name.
        sources: (label, domain name, session ids) of each card, demonstration or example. The label is what the error
            prints, such as "rules card 12".

    Raises:
        InputError: some source names a session that is not a training session of its domain, a domain that the run does
            not have, or no session at all (then nothing is proved). All such sources are listed, with the offending ids.
    """
    part_of = {
        name: {session.id: part for part, sessions in domain.splits.items() for session in sessions}
        for name, domain in domains.items()
    }
    checked, faults = 0, []
    for label, name, session_ids in sources:
        checked += 1
        ids = list(session_ids)
        if name not in part_of:
            faults.append(f"{label}: domain '{name}' is not one of {', '.join(part_of)}")
        elif not ids:
            faults.append(f"{label}: names no session that it came from")
        else:
            found = [(id, part_of[name].get(id, "unknown")) for id in ids]
            wrong = [f"{id} ({part})" for id, part in found if part != "train"]
            if wrong:
                faults.append(f"{label}: {name} session{'s' * (len(wrong) > 1)} {', '.join(wrong)}")
    if faults:
        listed = "\n  ".join(faults)
        raise InputError(f"{len(faults)} of {checked} sources do not come from training sessions alone:\n  {listed}")
    return checked


QUOTED_WORDS = 4  # of a title, one after the other; fewer may stand in a text by chance


def leak_counts(domain: Domain, texts: Iterable[str]) -> dict[str, str]:
    """What test sessions share with training sessions though no id is the same, and what knowledge (`texts`) quotes: label → "k of n"."""
    train, test = domain.splits["train"], domain.splits["test"]
    seen_by = defaultdict(set)  # product → training sessions
    for place, session in enumerate(train):
        for item in session.items:
            seen_by[item].add(place)

    def near(session) -> bool:
        """Half of all products of both (Jaccard) are the same, or the other session holds all of this one's."""
        items = set(session.items)
        others = [set(train[place].items) for place in {place for item in items for place in seen_by[item]}]
        return any(2 * len(items & other) >= len(items | other) or items <= other for other in others)

    trained_users = {domain.users[session.id] for session in train if session.id in domain.users}
    of_users = sum(domain.users.get(session.id) in trained_users for session in test)
    of_train, of_others = (
        {run for part in parts for session in domain.splits[part] for title in session.titles for run in _runs(title)}
        for parts in (("train",), ("validation", "test"))
    )
    quoted = [_runs(text) for text in texts]
    quoting, alien = (sum(bool(runs & of) for runs in quoted) for of in (of_train | of_others, of_others - of_train))
    return {
        "test sessions of a user who has a training session": f"{of_users} of {len(test)}"
        if domain.users
        else "unknown",
        "test sessions that share half their products with a training session, or lie within one": f"{sum(map(near, test))} of {len(test)}",
        f"knowledge cards that quote {QUOTED_WORDS} words of a title": f"{quoting} of {len(quoted)}",
        f"knowledge cards that quote {QUOTED_WORDS} words which no training session's titles have, but others' do": f"{alien} of {len(quoted)}",
    }


def _runs(text: str) -> set[tuple[str, ...]]:
    """All QUOTED_WORDS words of a text that stand one after the other, whatever their case and what is between them."""
    words = re.findall(r"\w+", text.lower())
    return set(zip(*(words[start:] for start in range(QUOTED_WORDS)), strict=False))
