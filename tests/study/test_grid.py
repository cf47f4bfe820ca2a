"""The cells of a study: what is refused, and which folder each run has."""

import pytest

from configs import study_format, study_quantity, study_recipe, study_use
from configs.base import cell, study
from kdjax.errors import InputError
from kdjax.study.grid import grid


def cells_of(*cells, **fields):
    config = study("x", "?", cells)
    config.study.update(fields)
    return config


@pytest.mark.parametrize(
    "config, message",
    [
        (cells_of(), "a study has cells"),
        (cells_of(cell("a"), cell("a")), "two cells are named 'a'"),
        (cells_of(cell("a", "b")), "'a' is compared with 'b'"),
        (cells_of(cell("a", "a")), "'a' is compared with 'a'"),
        (cells_of(cell("a"), seeds=()), "name at least one"),
        (cells_of(cell("a"), seeds=(1, 1)), "each once"),
        (
            cells_of(cell("a", train__epoch=3)),
            "'a': the config has no field 'train.epoch'; did you mean 'train.epochs'",
        ),
        (cells_of(cell("a", train__epochs="many")), "'a': train.epochs='many' does not fit"),
        (cells_of(cell("a", train__epochs=0)), "'a': config.train.epochs=0 must be at least 1"),
        (cells_of(cell("a", study__seeds=(1,))), "no field 'study.seeds'"),
        (cells_of(cell("a", eval__max_sessions=3)), "'a': eval.max_sessions is the same in all cells"),
        (cells_of(cell("a", job="generate")), "'a': job='generate' cannot be a cell"),
    ],
)
def test_a_grid_that_cannot_be_run_names_its_cell(config, message, tmp_path):
    with pytest.raises(InputError) as error:
        grid(config, tmp_path)
    assert message in str(error.value)


def test_seeds_are_for_cells_that_are_trained_or_have_a_head_fitted(tmp_path):
    writes = {"student__answer": "text", "eval__orders": 1}
    cells = cell("a"), cell("b", "a", train__max_steps=0, **writes), cell("frozen", train__max_steps=0)
    given = cell("given", train__max_steps=0, student__adapter="runs/one/adapter")
    trained, untrained, frozen, one = grid(cells_of(*cells, given), tmp_path)
    assert len(frozen.runs) == 3 and len(one.runs) == 1
    assert [run.seed for run in trained.runs] == [run.config.seed for run in trained.runs] == [0, 1, 2]
    assert [run.seed for run in untrained.runs] == [0] and untrained.against == "a"
    assert all(run.config.job == "run" and "study" not in run.config for run in trained.runs + untrained.runs)


def test_a_changed_cell_has_another_folder_and_the_others_keep_theirs(tmp_path):
    before = grid(cells_of(cell("a"), cell("b", train__epochs=3)), tmp_path)
    after = grid(cells_of(cell("a"), cell("b", train__epochs=4)), tmp_path)
    folders = [[run.folder for run in one.runs] for one in before + after]
    assert folders[0] == folders[2] and not set(folders[1]) & set(folders[3])
    assert len({folder for pair in folders[:2] for folder in pair}) == 6


def test_each_domain_alone_is_compared_with_all_together(tmp_path):
    config = cells_of(cell("all"), each_domain=True)
    assert [one.name for one in grid(config, tmp_path)] == ["all"]
    config.data.domains = ("books", "tools")
    _, books, tools, together = grid(config, tmp_path)
    assert (together.against, together.fields) == ("all", {"knowledge.all_domains": True})
    assert (books.name, books.against, books.runs[0].config.data.domains) == ("books alone", "all", ("books",))
    assert tools.runs[0].config.data.domains == ("tools",)
    config.knowledge.formats = ()
    assert len(grid(config, tmp_path)) == 3


@pytest.mark.parametrize("config", [study_format, study_quantity, study_recipe, study_use])
@pytest.mark.parametrize("version", ["", "smoke"])
def test_the_studies_here_are_grids(config, version, tmp_path):
    cells = grid(config.get_config(version), tmp_path)
    assert len({run.folder for one in cells for run in one.runs}) == sum(len(one.runs) for one in cells)
