"""How sessions are split: the official rule of the BundleRec domains, and a hashed one for data that brings no split."""

from collections.abc import Sequence
from hashlib import sha256

from kdjax.data.sessions import Session

SPLITS = ("train", "validation", "test")
N_TEST, N_VALIDATION = 20, 10  # per session length


def official_split(sessions: Sequence[Session]) -> dict[str, list[Session]]:
    """Split by session length: of each length the last 20 sessions are test, the 10 before validation, the rest train.

    `sessions` come in the order of their first bundle. The parts list the lengths in ascending order. Test and validation
    are therefore balanced over the lengths, and training is not; a length with fewer than 30 sessions fills test first. The
    rule reproduces the session sets of AICL's published files (arXiv 2312.16262).
    """
    by_length: dict[int, list[Session]] = {}
    for session in sessions:
        by_length.setdefault(len(session), []).append(session)
    splits: dict[str, list[Session]] = {part: [] for part in SPLITS}
    for _, group in sorted(by_length.items()):
        n_train = max(len(group) - N_TEST - N_VALIDATION, 0)
        n_before_test = max(len(group) - N_TEST, 0)
        splits["train"] += group[:n_train]
        splits["validation"] += group[n_train:n_before_test]
        splits["test"] += group[n_before_test:]
    return splits


def hashed_split(sessions: Sequence[Session]) -> dict[str, list[Session]]:
    """Split 70 / 10 / 20 % by the order of sha256(session id): which ids there are decides, not how they are ordered.

    Of n sessions in hash order the first ⌊0.7 n⌋ are train, those up to ⌊0.8 n⌋ validation, the rest test. Each part keeps
    the order of `sessions`.
    """
    ranked = sorted((session.id for session in sessions), key=lambda id: sha256(id.encode()).digest())
    n_train, n_before_test = 7 * len(ranked) // 10, 8 * len(ranked) // 10
    part_of = {
        id: "train" if rank < n_train else "validation" if rank < n_before_test else "test"
        for rank, id in enumerate(ranked)
    }
    return {part: [session for session in sessions if part_of[session.id] == part] for part in SPLITS}
