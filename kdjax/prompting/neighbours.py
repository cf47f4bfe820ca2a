"""Which training sessions are shown as demonstrations: the ones most like the session that is asked about."""

from collections.abc import Sequence

import numpy as np

from kdjax.data import Session
from kdjax.prompting.encoder import sentence_encoder


class Neighbours:
    """Finds the nearest of `sessions` by the cosine of session vectors; the order of the products does not matter.

    A session's vector is the TF-IDF of all words of its titles or, where `encoder` names a sentence encoder (as the predecessor AICL
    finds them), the mean of its titles' vectors.
    """

    def __init__(self, sessions: Sequence[Session], encoder: str = ""):
        self._sessions = list(sessions)
        self._encode = sentence_encoder(encoder) if encoder else None
        if not self._encode:
            from sklearn.feature_extraction.text import TfidfVectorizer

            self._words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\S+")
            self._words.fit([*map(_text, sessions), "a"])  # an empty vocabulary is refused
        self._vectors = self._read(self._sessions)

    def prepare(self, sessions: Sequence[Session]) -> None:
        """Let a sentence encoder read these sessions at once, before each is asked about."""
        if self._encode:
            self._read(sessions)

    def __call__(self, session: Session, count: int, others: bool = False) -> list[Session]:
        """The `count` nearest, nearest first (of equals the first in order); fewer where there are fewer. `others`: but
        for the session of its own id."""
        similar = (self._vectors @ self._read([session]).T).toarray()[:, 0].round(6)
        order = (self._sessions[i] for i in np.argsort(-similar, kind="stable"))
        return [other for other in order if not others or other.id != session.id][:count]

    def _read(self, sessions: Sequence[Session]):
        """Unit vectors [sessions, width], as a sparse matrix."""
        if not self._encode:
            return self._words.transform([*map(_text, sessions), ""])[:-1]  # no session is refused, too
        from scipy.sparse import csr_array

        vectors = self._encode([title for session in sessions for title in session.titles])
        ends = np.cumsum([len(session) for session in sessions])[:-1]
        means = np.stack([part.mean(axis=0) for part in np.split(vectors, ends)])
        return csr_array(means / np.linalg.norm(means, axis=1, keepdims=True))


def _text(session: Session) -> str:
    return "\n".join(session.titles)
