"""Answers of a student: generated with a KV cache under the bundle automaton, or read off its links."""

from kdjax.decoding.automaton import MODES, Automaton, check_budget, compile_automaton, session_language
from kdjax.decoding.generate import Completion, Constraint, Generator
from kdjax.decoding.links import LinkReader, pair_probabilities
from kdjax.decoding.partitions import Bundles, best_answer, in_place, likely_bundles, mean_beliefs

__all__ = [
    "MODES",
    "Automaton",
    "Bundles",
    "Completion",
    "Constraint",
    "Generator",
    "LinkReader",
    "best_answer",
    "check_budget",
    "compile_automaton",
    "in_place",
    "likely_bundles",
    "mean_beliefs",
    "pair_probabilities",
    "session_language",
]
