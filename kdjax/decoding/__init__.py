"""Answers of a student: generated with a KV cache under the bundle automaton, or judged from its hidden states."""

from kdjax.decoding.automaton import MODES, Automaton, check_budget, compile_automaton, refused_target, session_language
from kdjax.decoding.generate import Completion, Constraint, Generator
from kdjax.decoding.no_bundle import NoBundle, fit_no_bundle
from kdjax.decoding.partitions import (
    NO_BUNDLE,
    Grouping,
    best_answer,
    bundle_probabilities,
    likely_bundles,
    sure_answer,
)
from kdjax.decoding.states import StateReader
from kdjax.decoding.steady import SteadyRows

__all__ = [
    "MODES",
    "NO_BUNDLE",
    "Automaton",
    "Completion",
    "Constraint",
    "Generator",
    "Grouping",
    "NoBundle",
    "StateReader",
    "SteadyRows",
    "best_answer",
    "bundle_probabilities",
    "check_budget",
    "compile_automaton",
    "fit_no_bundle",
    "likely_bundles",
    "refused_target",
    "session_language",
    "sure_answer",
]
