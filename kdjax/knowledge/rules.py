"""Many sessions' rules → one de-duplicated list per domain."""

from collections.abc import Sequence

import numpy as np

from kdjax.data import Session
from kdjax.knowledge.cards import Card
from kdjax.knowledge.composition import rules_block
from kdjax.knowledge.protocols import CountTokens, Log
from kdjax.knowledge.reflection import RuleCandidate
from kdjax.teacher import annotation_rules

SAME = 0.8  # TF-IDF cosine from which two rules say the same
# As the vectorizer splits them: "don't" is "don" and "t".
_NEGATIONS = frozenset(["no", "not", "never", "avoid", "without", "cannot", "don", "doesn", "shouldn", "isn", "aren"])


def merge_rules(
    candidates: Sequence[RuleCandidate],
    domain: str,
    *,
    limit: int,
    max_tokens: int,
    count_tokens: CountTokens,
    log: Log,
) -> list[Card]:
    """Merge near-equal rules (TF-IDF cosine ≥ 0.8) into one card each, in its shortest wording.

    `support` counts the distinct sessions behind a card. Most supported first, then by text; at most `limit` cards, which take at
    most `max_tokens` tokens in the prompt, heading and numbers included.
    """
    cards = []
    for members in _near_equal(sorted(candidates, key=lambda rule: (len(rule.text), rule.text))):
        sessions = tuple(sorted({rule.session for rule in members}))
        calls = tuple(sorted({call for rule in members for call in rule.calls}))
        cards.append(_card(domain, members[0].text, sessions, calls, len(sessions), count_tokens))
    return _within_budget(
        sorted(cards, key=lambda card: (-card.support, card.text)), limit, max_tokens, count_tokens, log
    )


def annotation_rule_cards(
    sessions: Sequence[Session], domain: str, *, limit: int, max_tokens: int, count_tokens: CountTokens, log: Log
) -> list[Card]:
    """The rules that annotations give without a teacher, as cards; in the order and with the support they come with."""
    cards = [
        _card(domain, text, tuple(session_ids), (), support, count_tokens)
        for text, support, session_ids in annotation_rules(sessions, limit)
    ]
    return _within_budget(cards, limit, max_tokens, count_tokens, log)


def _near_equal(rules: list[RuleCandidate]) -> list[list[RuleCandidate]]:
    """Each rule joins the first group whose first rule is near-equal, or begins one; all keep their order."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not rules:
        return []
    vectorizer = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b")
    vectors = vectorizer.fit_transform(rule.text for rule in rules)
    words = vectorizer.build_analyzer()
    negated = [not _NEGATIONS.isdisjoint(words(rule.text)) for rule in rules]
    groups: list[list[int]] = []
    for index in range(len(rules)):
        firsts = [group[0] for group in groups]
        cosine = (vectors[firsts] @ vectors[index].T).toarray()[:, 0] if groups else np.zeros(0)
        # A rule and its negation share nearly all their words, and say the opposite.
        same = [at for at, first in enumerate(firsts) if cosine[at] >= SAME and negated[first] == negated[index]]
        if same:
            groups[same[0]].append(index)
        else:
            groups.append([index])
    return [[rules[index] for index in group] for group in groups]


def _card(
    domain: str, text: str, sessions: tuple[str, ...], calls: tuple[str, ...], support: int, count_tokens: CountTokens
) -> Card:
    return Card("rules", domain, text, sessions, calls, support, tokens=count_tokens(text))


def _within_budget(cards: list[Card], limit: int, max_tokens: int, count_tokens: CountTokens, log: Log) -> list[Card]:
    """The first `limit` cards that fit: one too long is passed over, a shorter one after it may still come in."""
    kept: list[Card] = []
    for card in cards:
        block = rules_block([rule.text for rule in (*kept, card)])
        if len(kept) < limit and count_tokens(block) <= max_tokens:
            kept.append(card)
    if len(kept) < len(cards):
        log(f"{len(cards)} rules, of which {len(kept)} fit in a prompt (at most {limit}, of {max_tokens} tokens)")
    return kept
