"""What a plan counts: work that cells share once, work of their own each time."""

import pytest

from configs.base import cell, study
from configs.sft_text import WRITES
from kdjax.study.cell import load_domains
from kdjax.study.grid import grid
from kdjax.study.plan import WorkCounter

ICL = WRITES | {"train__max_steps": 0}


def counted(tmp_path, *cells, keep="all", **teacher):
    """The flops of each cell's run, one counted after the other, and alone."""
    config = study("x", "?", tuple(cell(name, **fields) for name, fields in cells))
    config.study.seeds = (0,)
    config.teacher.update(kind="annotations", **teacher)
    config.student.update(source="tiny-random", pair_layers=1)
    config.knowledge.update(max_tokens=400, keep=keep)
    config.train.max_length = 4096
    config.eval.max_sessions = 4
    together, found = WorkCounter(), []
    for one in grid(config, tmp_path):
        domains = load_domains(one.runs[0].config)
        found.append((together(one.runs[0], domains).flops, WorkCounter()(one.runs[0], domains).flops))
    return found


@pytest.mark.parametrize("told", [{}, ICL], ids=["judges", "writes"])
def test_what_an_untrained_student_does_for_two_cells_counts_once(tmp_path, told):
    untrained = told | {"train__max_steps": 0}
    (first, alone), (second, _) = counted(tmp_path, ("one", untrained), ("the same", untrained))
    assert first == alone > 0 and second == 0


def test_fine_tuning_counts_each_time(tmp_path):
    (first, _), (second, alone), (third, _) = counted(
        tmp_path, ("untrained", {"train__max_steps": 0}), ("once", {}), ("twice", {"lora__r": 8})
    )
    assert second == third == alone - first  # head and answers before training are there


def test_the_frozen_student_is_told_no_demonstrations(tmp_path):
    shown = ICL | {"prompting__demonstrations": 2}
    (first, _), (second, alone) = counted(tmp_path, ("zero-shot", ICL), ("shown", shown))
    assert 0 < alone - second < first  # head and answers of the frozen student, not what is written


def test_other_knowledge_is_other_work(tmp_path):
    fields = {"train__max_steps": 0}
    _, (second, alone) = counted(tmp_path, ("rules", fields), ("none", fields | {"knowledge__formats": ()}))
    assert second == alone
    asked = fields | {"teacher__kind": "hf", "teacher__source": "tiny-random"}  # whose rules nobody knows yet
    _, (second, alone) = counted(tmp_path, ("none", fields | {"knowledge__formats": ()}), ("rules", asked))
    assert second == alone
