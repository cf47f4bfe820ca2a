"""The proof that what a student was taught with comes from training sessions alone."""

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
