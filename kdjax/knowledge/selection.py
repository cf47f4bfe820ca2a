"""How much knowledge: which training sessions a teacher is asked about, or a student is trained on.

A strategy puts all sessions in one order and a sample is a prefix of it. So samples are nested: what 10 % holds, 25 %
holds too, and a curve over the ratio adds sessions and never exchanges them.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from kdjax.data import Session
from kdjax.errors import InputError

STRATEGIES = ("random", "length", "diversity", "difficulty")


def sample_sessions(
    sessions: Sequence[Session],
    *,
    ratio: float | None = None,
    count: int | None = None,
    strategy: str = "random",
    seed: int | Sequence[int] = 0,
    difficulty: Mapping[str, float] | None = None,
) -> list[Session]:
    """Choose `count` sessions, or `ratio` of them (at least one), and return them in their original order.

    random: a permutation. length: every prefix has the lengths in (nearly) the proportions of the whole. diversity:
    k-center greedy on TF-IDF vectors of titles, each session the one farthest from all before. difficulty: the highest
    `difficulty[session.id]` first, for example 1 − F1 of a model. `seed` decides the permutation, the order within a
    length, the first centre, and ties of difficulty. Raises InputError for an unknown strategy, an amount out of range
    or a missing difficulty.
    """
    if (ratio is None) == (count is None):
        raise InputError("a sample takes either a ratio or a count")
    if ratio is not None and not 0 < ratio <= 1:
        raise InputError(f"ratio is {ratio}: it has to be above 0 and at most 1")
    if count is not None and count < 1:
        raise InputError(f"count is {count}: it has to be 1 or more")
    amount = max(1, round(ratio * len(sessions))) if ratio is not None else count
    order = _order(sessions, strategy, seed, difficulty)
    return [sessions[index] for index in sorted(islice(order, amount))]


def _order(
    sessions: Sequence[Session], strategy: str, seed: int | Sequence[int], difficulty: Mapping[str, float] | None
) -> Iterator[int]:
    shuffled = np.random.default_rng(seed).permutation(len(sessions)).tolist()
    if strategy == "random":
        return iter(shuffled)
    if strategy == "length":
        return iter(_by_length(sessions, shuffled))
    if strategy == "diversity":
        return _by_diversity(sessions, shuffled)
    if strategy == "difficulty":
        return iter(_by_difficulty(sessions, shuffled, difficulty))
    raise InputError(f'unknown strategy "{strategy}"; there are {", ".join(STRATEGIES)}')


def _by_length(sessions: Sequence[Session], shuffled: list[int]) -> list[int]:
    """Round robin in proportion: member r of m sessions of one length comes at the time (r + ½) / m."""
    strata = defaultdict(list)
    for index in shuffled:
        strata[len(sessions[index])].append(index)
    times = [
        ((rank + 0.5) / len(stratum), length, index)
        for length, stratum in strata.items()
        for rank, index in enumerate(stratum)
    ]
    return [index for _, _, index in sorted(times)]


def _by_diversity(sessions: Sequence[Session], shuffled: list[int]) -> Iterator[int]:
    """k-center greedy (Gonzalez 1985) by cosine distance, one session at a time; a tie goes to the earliest session."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not shuffled:
        return
    texts = [" ".join(session.titles) for session in sessions]
    vectors = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b").fit_transform(texts)
    nearest = np.full(len(sessions), np.inf)  # distance to the nearest chosen session; -1: chosen
    centre = shuffled[0]
    for _ in shuffled:
        yield centre
        distance = (1 - (vectors @ vectors[centre].T).toarray()[:, 0]).round(9)  # equal titles are a tie at 0
        nearest = np.minimum(nearest, distance)
        nearest[centre] = -1
        centre = int(nearest.argmax())


def _by_difficulty(
    sessions: Sequence[Session], shuffled: list[int], difficulty: Mapping[str, float] | None
) -> list[int]:
    if difficulty is None:
        raise InputError('the strategy "difficulty" needs the difficulty of every session')
    for session in sessions:
        if session.id not in difficulty:
            raise InputError(
                f'session "{session.id}" has no difficulty; the strategy "difficulty" needs one for every session'
            )
    return sorted(shuffled, key=lambda index: -difficulty[sessions[index].id])
