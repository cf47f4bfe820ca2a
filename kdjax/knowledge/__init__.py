"""What a teacher or the training bundles know, as cards: patterns, rules, thoughts; how many, and which help."""

from kdjax.knowledge.cards import FORMATS, Card, read_cards, write_cards
from kdjax.knowledge.composition import knowledge_text
from kdjax.knowledge.patterns import mine_patterns
from kdjax.knowledge.predecessor import AFTER_NEIGHBOUR, MOST_TURNS, Dialogue, aicl
from kdjax.knowledge.protocols import Ask, CountTokens, Log
from kdjax.knowledge.reflection import TURNS, RuleCandidate, reflect
from kdjax.knowledge.rules import annotation_rule_cards, merge_rules
from kdjax.knowledge.selection import STRATEGIES, sample_sessions
from kdjax.knowledge.thoughts import annotation_thoughts, think
from kdjax.knowledge.validation import keep_validated

__all__ = [
    "AFTER_NEIGHBOUR",
    "FORMATS",
    "MOST_TURNS",
    "STRATEGIES",
    "TURNS",
    "Ask",
    "Card",
    "CountTokens",
    "Dialogue",
    "Log",
    "RuleCandidate",
    "aicl",
    "annotation_rule_cards",
    "annotation_thoughts",
    "keep_validated",
    "knowledge_text",
    "merge_rules",
    "mine_patterns",
    "read_cards",
    "reflect",
    "sample_sessions",
    "think",
    "write_cards",
]
