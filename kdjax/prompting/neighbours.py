"""Which training sessions are shown as demonstrations: the ones most like the session that is asked about."""

from collections.abc import Sequence

import numpy as np

from kdjax.data import Session


class Neighbours:
    """Finds the nearest of `sessions` by TF-IDF over all words of a session's titles, as the predecessor AICL finds by a text encoder.

    The order of the products does not matter.
    """

    def __init__(self, sessions: Sequence[Session]):
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._sessions = list(sessions)
        self._words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\S+")
        self._vectors = self._words.fit_transform([*map(_text, sessions), "a"])[:-1]  # an empty vocabulary is refused

    def __call__(self, session: Session, count: int, others: bool = False) -> list[Session]:
        """The `count` nearest, nearest first (of equals the first in order); fewer where there are fewer. `others`: but for the session of its own id."""
        similar = (self._vectors @ self._words.transform([_text(session)]).T).toarray()[:, 0].round(9)
        order = (self._sessions[i] for i in np.argsort(-similar, kind="stable"))
        return [other for other in order if not others or other.id != session.id][:count]


def _text(session: Session) -> str:
    return "\n".join(session.titles)
