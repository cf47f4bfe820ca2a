"""What the README says of the student on real data, at full size."""

import json

import pytest

from kdjax.data import load_domain
from kdjax.evaluation import TRAINED, paired_bootstrap, run_baselines, score, session_counts


@pytest.mark.real
@pytest.mark.parametrize("domain", ["electronic", "clothing"])
def test_the_untrained_student_beats_every_rule_of_thumb(launch, bundlerec, tmp_path, domain):
    """The frozen student alone, the half of the recipe that takes minutes: all test sessions, SmolLM2-135M."""
    flags = [
        "--config.data.source=bundlerec",
        f"--config.data.root={bundlerec}",
        f"--config.data.domains=('{domain}',)",
    ]
    process = launch("sft_plain.py", f"--workdir={tmp_path / 'run'}", *flags, "--config.train.max_steps=0", start=True)
    said, _ = process.communicate()
    assert process.returncode == 0, said[-3000:]
    splits = load_domain("bundlerec", str(bundlerec), domain).splits
    truth = [session.bundles for session in splits["test"]]
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    assert [row["session_id"] for row in rows] == [session.id for session in splits["test"]]
    student = session_counts(*([row[name] for row in rows] for name in ("predicted", "truth")))
    rules = {name: found for name, found in run_baselines(*splits.values()).items() if name != TRAINED}
    best = max(rules, key=lambda name: score(rules[name], truth)["strict"]["f1"])
    assert paired_bootstrap(student, session_counts(rules[best], truth), "strict.f1").low > 0, best
