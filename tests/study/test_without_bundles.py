"""A domain without annotated bundles: no job learns from it or scores on it."""

from dataclasses import replace

import pytest

from configs import aicl, probe, sft_plain, study_recipe
from kdjax.data import DATA_SOURCES, load_domain
from kdjax.errors import InputError
from kdjax.study import probe as run_probe
from kdjax.study import run, run_aicl, study


@pytest.mark.parametrize(
    ("job", "config"), [(run, sft_plain), (run_probe, probe), (run_aicl, aicl), (study, study_recipe)]
)
def test_it_is_refused_before_anything_is_written(job, config, tmp_path, monkeypatch):
    demo = load_domain("demo", "", "demo")
    bare = {part: [replace(session, bundles=(), intents=()) for session in of] for part, of in demo.splits.items()}
    monkeypatch.setitem(DATA_SOURCES, "demo", lambda root, name: replace(demo, splits=bare))
    with pytest.raises(InputError, match=r"domain demo .* has no annotated bundles"):
        job(config.get_config("smoke"), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
