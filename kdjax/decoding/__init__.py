"""Generation with a KV cache, under the bundle automaton."""

from kdjax.decoding.automaton import MODES, Automaton, check_budget, compile_automaton, session_language
from kdjax.decoding.generate import Completion, Constraint, Generator

__all__ = [
    "MODES",
    "Automaton",
    "Completion",
    "Constraint",
    "Generator",
    "check_budget",
    "compile_automaton",
    "session_language",
]
