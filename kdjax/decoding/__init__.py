"""Answers of a student: generated with a KV cache under the bundle automaton, or judged from its hidden states."""

from kdjax.decoding.automaton import MODES, Automaton, check_budget, compile_automaton, refused_target, session_language
from kdjax.decoding.generate import Completion, Constraint, Generator
from kdjax.decoding.partitions import Grouping, best_answer, likely_bundles
from kdjax.decoding.states import StateReader

__all__ = [
    "MODES",
    "Automaton",
    "Completion",
    "Constraint",
    "Generator",
    "Grouping",
    "StateReader",
    "best_answer",
    "check_budget",
    "compile_automaton",
    "likely_bundles",
    "refused_target",
    "session_language",
]
