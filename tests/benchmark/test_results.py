"""What is said about measurements."""

import copy

import numpy as np
import pytest

from kdjax.benchmark import results


def reply(seconds: float, examples: int = 16, **more) -> dict:
    timing = {"seconds": seconds, "cpu_seconds": 2 * seconds, "peak_bytes": 3 * 2**30}
    return timing | {"examples": examples, "real_tokens": 1600, "padded_tokens": 2000} | more


@pytest.fixture
def found() -> dict:
    machine = {
        "devices": ["cpu cpu"],
        "cpu": "A processor",
        "cores": 2,
        "dtype": "float32",
        "versions": {"jax": "1.0", "torch": "2.0"},
        "time": "2026-01-01T00:00:00+00:00",
        "model": "a model",
        "linear_parameters": 1_000_000,
        "matmul_rates": {"JAX": 1e10, "torch": 5e9},
        "synthetic": True,
        "examples": 160,
        "mean_tokens": 100.0,
        "mean_targets": 10.0,
        "shared_tokens": 40,
    }
    replies = {
        "TRL, packed": [reply(4.0), reply(8.0, examples=20, real_tokens=2000), reply(4.0)],
        "TRL, padded": [reply(10.0), reply(10.0), reply(10.0)],
        "kdjax": [reply(2.0), reply(2.0), reply(4.0)],
    }
    generated = {
        "kdjax, items": [reply(0.5, calls=20, joined=25), reply(0.5, calls=20, joined=25)],
        "kdjax, none": [reply(1.0, new_tokens=5, calls=30, joined=0)],
        "transformers": [reply(3.0, new_tokens=5)],
    }
    return {
        "machine": machine,
        "job": {
            "replies": replies,
            "losses": {name: [2.5, 2.25, 2.125] for name in replies},
            "pack_losses": {"kdjax": 2.5, "TRL, packed": 2.5},
            "threads": 2,
            "first_turn": {"TRL, packed": 1.0, "TRL, padded": 0.5, "kdjax": 7.5},
        },
        "generation": {
            "replies": generated,
            "answers": {"equal": 179, "ties": 1},
            "threads": 2,
            "batch_sizes": {"8": 3.0, "16": 4.0},
            "first_turn": dict.fromkeys(generated, 2.0),
        },
        "startup": {"seconds": {"cold": 15.25, "warm": 6.0}},
        "growth": {
            "microseconds": {
                "length": {"1024": 990.0, "256": 900.0, "512": 950.0},
                "rows": {"1": 1000.0},
                "sessions": {"10": 70.0},
            }
        },
    }


def test_ratios_are_of_real_tokens_per_second_round_by_round(found):
    replies = found["job"]["replies"]
    np.testing.assert_allclose(results.ratios(replies, "TRL, packed", "kdjax"), [2.0, 8 / 2.5, 1.0])


def test_the_table_compares_with_our_side_first(found):
    text = results.markdown(found)
    job, generation = (text.split(f"**{title}**")[1].split("\n\n")[1] for title in ("The real job", "Generation"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in job.splitlines()]
    assert [row[0] for row in rows[2:]] == ["kdjax", "TRL, packed", "TRL, padded"]
    ours = dict(zip(rows[0], rows[2], strict=True))
    assert (
        ours["examples/s"] == "8.000" and ours["kdjax is faster by"] == "" and ours["first turn − median, s"] == "7.5"
    )
    assert ours["padded tokens/s"] == "1000" and ours["peak GiB"] == "3.00" and ours["CPU-s"] == "4.00"
    assert ours["MFU"] == "40%"  # 4 · 10⁶ · 1000 tokens/s of 10¹⁰
    assert dict(zip(rows[0], rows[3], strict=True))["kdjax is faster by"] == "2.00 × [1.00, 3.20]"
    assert ours["s per unit, p50"] == "2.00" and ours["min–max"] == "2.00–4.00" and "new tokens/s" not in ours
    assert "| transformers | 5.333 | 3.00 ×" in generation  # against the mode that computes the same
    assert "| kdjax, items | 32.000 |  |" in generation and "new tokens/s" in generation
    for said in (
        "synthetic",
        results.FORMULA,
        "179 answers are equal and 1 differ",
        "cold compile cache: 15.2 s",
        "by length: 256: 900, 512: 950, 1024: 990",
        "items 20 and 25",
        "none 30 and 0",
        "loss of the first step: TRL, packed 2.5000",
    ):
        assert said in text


def test_a_percentile_takes_many_rounds(found):
    for rows in found["job"]["replies"].values():
        rows *= 7
    job = results.markdown(found).split("**The real job**")[1].split("**Generation**")[0]
    assert "| p95 |" in job and "min–max" not in job


def test_parts_that_were_not_measured_are_not_shown(found, tmp_path):
    only = {name: copy.deepcopy(found[name]) for name in ("machine", "startup")}
    assert "The real job" not in results.markdown(only)
    results.plot(only, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    results.plot(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
