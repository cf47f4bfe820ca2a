"""Which of a session's annotated bundles are kept: each set once, and none that contains another."""

from collections import Counter
from dataclasses import replace

from kdjax.data.sessions import Session

DUPLICATE = "exact duplicate bundles"
CONTAINING = "bundles that contain another of their session"


def deduplicate(session: Session) -> tuple[Session, Counter[str]]:
    """Keep the minimal bundles of `session`, in their order and with their intents; count the others by reason.

    Of equal bundles the first stays (with its intent); then every bundle that strictly contains another goes. This is the
    rule behind the data files of AICL (arXiv 2312.16262), which it reproduces for every session.
    """
    first: dict[frozenset[int], int] = {}
    for position, bundle in enumerate(session.bundles):
        first.setdefault(frozenset(bundle), position)
    kept = [position for bundle, position in first.items() if not any(other < bundle for other in first)]
    dropped = Counter({DUPLICATE: len(session.bundles) - len(first), CONTAINING: len(first) - len(kept)})
    bundles = tuple(session.bundles[position] for position in kept)
    return replace(session, bundles=bundles, intents=tuple(session.intents[position] for position in kept)), dropped
