import re
from xml.etree import ElementTree

import numpy as np
import pytest

from kdjax.reporting.plots import MOST_POINTS, curves, forest
from kdjax.reporting.tables import results


def history(steps):
    rows = [{"step": step, "loss": 2.0 / step, "learning_rate": 1e-4 * step} for step in range(1, steps + 1)]
    return rows + [{"epoch": epoch, "step": epoch, "validation": {"strict": {"f1": 0.2 * epoch}}} for epoch in (1, 2)]


def test_curves_in_words():
    plots = {plot.title: plot.alt for plot in curves(history(40))}
    assert plots == {
        "Training loss": "Training loss: from 2 at step 1 to 0.05 at step 40, 40 points",
        "Validation strict F1": "Validation strict F1: from 0.2 at epoch 1 to 0.4 at epoch 2, 2 points",
        "Learning rate": "Learning rate: from 0.0001 at step 1 to 0.004 at step 40, 40 points",
    }


def test_only_what_the_history_has_is_drawn():
    assert curves([]) == []
    assert [plot.title for plot in curves([{"step": 1, "loss": 3.0}, {"step": 2, "loss": None}])] == ["Training loss"]


def test_a_step_that_was_repeated_counts_once_and_last():
    (plot,) = curves([{"step": 1, "loss": 3.0}, {"step": 2, "loss": 9.0}, {"step": 2, "loss": 1.0}])
    assert plot.alt.endswith("to 1 at step 2, 2 points")


def test_the_same_numbers_draw_the_same_bytes(metrics):
    rows = results(metrics)[0].rows
    assert forest(rows, "a", "f") == forest(rows, "a", "f") and curves(history(40)) == curves(history(40))


def test_a_long_run_does_not_make_a_large_drawing():
    short, long = (curves(history(steps))[0].svg for steps in (MOST_POINTS, 20 * MOST_POINTS))
    assert len(long) < 1.3 * len(short)


def test_svg_is_well_formed_with_ids_of_its_own_and_no_address(metrics):
    plots = [
        forest(results(metrics)[0].rows, "a", "f0"),
        forest(results(metrics)[1].rows, "b", "f1"),
        *curves(history(40)),
    ]
    for plot in plots:
        ElementTree.fromstring(plot.svg.replace("<svg", '<svg xmlns:xlink="x"', 1))
        assert "http" not in plot.svg and "#0102" not in plot.svg
        used = re.findall(r'(?:href="|url\()#([^")]+)', plot.svg)
        assert used and set(used) <= set(re.findall(r'id="([^"]+)"', plot.svg))
    ids = [name for plot in plots for name in re.findall(r' id="([^"]+)"', plot.svg)]
    assert len(ids) == len(set(ids))


def test_forest_names_every_row_as_text(metrics):
    plot = forest(results(metrics)[0].rows, "title", "f")
    texts = [element.text for element in ElementTree.fromstring(plot.svg.replace("xlink:", "")).iter("text")]
    assert {"untrained student", "one pair | <b>TF-IDF</b> $x$"} <= {text.strip() for text in texts}
    assert "random pair 0.102" in plot.alt


def test_forest_places_points_by_their_value(metrics):
    rows = results(metrics)[0].rows
    ticks_and_points = re.findall(r'<use xlink:href="#f-m\w+" x="([\d.]+)"', forest(rows, "title", "f").svg)
    x = np.array(ticks_and_points[-len(rows) :], float)
    values = [row.f1 for row in rows]
    slope, offset = np.polyfit(values, x, 1)
    assert slope > 100
    np.testing.assert_allclose(slope * np.array(values) + offset, x, atol=1e-3)


def test_no_number_no_forest():
    assert forest([], "title", "f") is None


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_of_few_steps_can_be_drawn(steps):
    assert len(curves(history(steps))) == 3
