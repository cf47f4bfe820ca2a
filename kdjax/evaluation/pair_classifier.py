"""The trained floor, without a language model: which two products of a session belong together, learned from pairs of training sessions.

Gradient-boosted trees judge each pair by its titles and categories.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float

from kdjax.data.sessions import Session, leaf_category
from kdjax.evaluation.pairs import share_a_bundle
from kdjax.evaluation.titles import distinct_titles, title_similarity


class PairClassifier:
    """The probability that two products of a session share a bundle, learned from `train`.

    The title weights are those of the training sessions' products too. Where the training pairs are all of one kind, each
    pair is of that kind.
    """

    def __init__(self, train: Sequence[Session], seed: int):
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.feature_extraction.text import TfidfVectorizer

        titles = [*distinct_titles(train), "a"]  # one word at least, since scikit-learn refuses an empty vocabulary
        self._views = [
            TfidfVectorizer(sublinear_tf=True, token_pattern=r"\S+").fit(titles),
            TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(3, 5)).fit(titles),
        ]
        examples = [session for session in train if len(session) > 1]
        together = [share_a_bundle(session.bundles, len(session)) for session in examples]
        labels = np.concatenate(together) if together else np.zeros(0)
        self._constant = float(labels.mean()) if len(labels) else 0.0
        self._trees = None
        if 0.0 < self._constant < 1.0:
            self._trees = HistGradientBoostingClassifier(random_state=seed)
            self._trees.fit(np.concatenate([self._features(session) for session in examples]), labels)

    def __call__(self, session: Session) -> Float[np.ndarray, " pairs"]:
        """Of each pair (0, 1), (0, 2), …, (1, 2), …: n · (n − 1) / 2 of them."""
        count = len(session) * (len(session) - 1) // 2
        if self._trees is None or not count:
            return np.full(count, self._constant)
        return self._trees.predict_proba(self._features(session))[:, 1]

    def _features(self, session: Session) -> Float[np.ndarray, "pairs features"]:
        first, second = np.triu_indices(len(session), k=1)
        columns = []
        for view in self._views:
            similarity = title_similarity(view, session)
            columns += [similarity[first, second], *_ranks(similarity, first, second)]
        columns.extend(np.array([_categories(session, i, j) for i, j in combinations(range(len(session)), 2)]).T)
        columns.append(np.full(len(first), len(session)))
        return np.stack(columns, axis=1)


def _ranks(similarity, first, second) -> list[Float[np.ndarray, " pairs"]]:
    """How many pairs of the session are more similar, and how many partners of either product are; as shares."""
    pairs = similarity[first, second]
    others = similarity - 2.0 * np.eye(len(similarity))  # a product is no partner of its own
    of_pairs = (pairs[None] > pairs[:, None]).sum(axis=1) / max(1, len(pairs) - 1)
    partners = max(1, len(similarity) - 2)
    of_first = (others[first] > pairs[:, None]).sum(axis=1) / partners
    of_second = (others[second] > pairs[:, None]).sum(axis=1) / partners
    return [of_pairs, np.minimum(of_first, of_second), np.maximum(of_first, of_second)]


def _categories(session: Session, i: int, j: int) -> tuple[float, float, float]:
    """Same leaf; overlap of all names on the category paths (Jaccard); same first word of the title."""
    leaves = leaf_category(session.categories[i]), leaf_category(session.categories[j])
    names = [{name for path in session.categories[one] for name in path} for one in (i, j)]
    union = len(names[0] | names[1])
    words = [session.titles[one].lower().split()[:1] for one in (i, j)]
    return (
        float(leaves[0] is not None and leaves[0] == leaves[1]),
        len(names[0] & names[1]) / union if union else 0.0,
        float(bool(words[0]) and words[0] == words[1]),
    )
