"""The identity of a domain's data."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256

from kdjax.data.sessions import Session


def fingerprint(splits: Mapping[str, Sequence[Session]]) -> str:
    """The sha256 of canonical JSON of all that is kept: the splits in order, and of each session every field."""
    kept = [
        [part, [[s.id, s.items, s.titles, s.categories, s.bundles, s.intents] for s in sessions]]
        for part, sessions in splits.items()
    ]
    return sha256(json.dumps(kept, separators=(",", ":")).encode()).hexdigest()
