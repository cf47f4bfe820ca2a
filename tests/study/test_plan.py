"""What a plan counts: work that cells share once, work of their own each time."""

import pytest

from configs.base import cell, study
from configs.sft_text import WRITES
from kdjax.student import LoraConfig, load_student
from kdjax.study.cell import load_domains
from kdjax.study.grid import grid
from kdjax.study.plan import WorkCounter

ICL = WRITES | {"train__max_steps": 0}
UNTRAINED = {"train__max_steps": 0}
NOTHING = {"knowledge__formats": ()}


def counted(tmp_path, *cells):
    """The `Work` of each cell, (counted behind those before it, alone) each. Rules come from annotations."""
    config = study("x", "?", tuple(cell(str(number), **fields) for number, fields in enumerate(cells)))
    config.study.seeds = (0,)
    config.teacher.kind = "annotations"
    config.student.update(source="tiny-random", pair_layers=1)
    config.knowledge.max_tokens = 400
    config.train.max_length = 4096
    config.eval.max_sessions = 4
    together, found = WorkCounter(), []
    for one in grid(config, tmp_path):
        domains = load_domains(one.runs[0].config)
        found.append((together(one.runs[0], domains), WorkCounter()(one.runs[0], domains)))
    return found


@pytest.mark.parametrize("told", [UNTRAINED, ICL], ids=["judges", "writes"])
def test_what_an_untrained_student_does_for_two_cells_counts_once(tmp_path, told):
    (first, alone), (second, _) = counted(tmp_path, told, told)
    assert first == alone and first.first == first.further > 0  # another seed reads its own examples
    assert second.first == 0 and second.further == first.further
    assert second.seconds(1e9, 3) == pytest.approx(2 * first.seconds(1e9, 1))


def test_fine_tuning_counts_each_time(tmp_path):
    (untrained, _), (once, alone), (again, _) = counted(tmp_path, UNTRAINED, {}, {"lora__r": 8})
    assert once.steps == again.steps > 0
    assert once.first == again.first == alone.first - untrained.first  # head and answers before training are there


def test_the_frozen_student_is_told_no_demonstrations(tmp_path):
    (first, _), (second, alone) = counted(tmp_path, ICL, ICL | {"prompting__demonstrations": 2})
    assert 0 < alone.first - second.first < first.first  # its head and its answers, not what is written


OTHERS = {
    "rules that are there": (UNTRAINED, UNTRAINED | NOTHING),
    "rules to come": (UNTRAINED | NOTHING, UNTRAINED | {"teacher__kind": "hf", "teacher__source": "tiny-random"}),
    "knowledge of a sample": (
        UNTRAINED | {"quantity__applies_to": ("knowledge",)},
        UNTRAINED | {"quantity__applies_to": ("knowledge",), "quantity__ratio": 0.5},
    ),
    "sessions of a sample": (UNTRAINED | NOTHING, UNTRAINED | NOTHING | {"quantity__ratio": 0.5}),
    "another model": (UNTRAINED | NOTHING, UNTRAINED | NOTHING | {"student__quantization": "int8"}),
    "fewer layers": (UNTRAINED | NOTHING, UNTRAINED | NOTHING | {"student__pair_layers": 2}),
}


@pytest.mark.parametrize("cells", OTHERS.values(), ids=OTHERS.keys())
def test_what_differs_counts_apart(tmp_path, cells):
    _, (second, alone) = counted(tmp_path, *cells)
    assert second.first == alone.first


TRIED = UNTRAINED | {"knowledge__keep": "validated"}


def test_cards_are_tried_once_without_demonstrations(tmp_path):
    (plain, _), (tried, alone), (again, _) = counted(
        tmp_path, UNTRAINED, TRIED, TRIED | {"prompting__demonstrations": 2}
    )
    assert tried.first > 5 * plain.first and alone.first == tried.first  # cards depend on what is kept of them
    assert again.first < tried.first / 2 and again.further > tried.further


def test_an_adapter_is_asked_about_cards_anew(tmp_path):
    load_student("tiny-random", lora=LoraConfig(r=2)).save_adapter(tmp_path / "adapter")
    adapter = WRITES | {"student__adapter": str(tmp_path / "adapter")}
    (plain, _), (tried, _), (again, _) = counted(tmp_path, UNTRAINED | adapter, TRIED | adapter, TRIED | adapter)
    assert again.first == tried.first > 5 * plain.first


def test_what_measures_the_neighbours_of_aicl_counts(tmp_path):
    aicl = {"job": "aicl", "teacher__kind": "hf", "teacher__source": "tiny-random", "quantity__ratio": 0.5}
    (plain, _), (hard, _), (again, _) = counted(tmp_path, aicl, *[aicl | {"quantity__strategy": "difficulty"}] * 2)
    assert plain.first == again.first == 0 < hard.first


def test_difficulty_is_measured_once(tmp_path):
    hardest = UNTRAINED | NOTHING | {"quantity__strategy": "difficulty"}
    _, (half, alone), (tenth, _) = counted(
        tmp_path,
        UNTRAINED | NOTHING | {"quantity__ratio": 0.5},
        hardest | {"quantity__ratio": 0.5},
        hardest | {"quantity__ratio": 0.1},
    )
    assert half == alone and half.first > half.further  # not the random half, though as many sessions stand for it
    assert tenth.first == tenth.further > 0
