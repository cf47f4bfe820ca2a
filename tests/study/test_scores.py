import pytest

from kdjax.data import load_domain
from kdjax.evaluation import KINDS, TRAINED
from kdjax.study.examples import spread
from kdjax.study.scores import FROZEN, baseline_rows, results

LIMIT = 12


@pytest.fixture(scope="module")
def domains():
    return {name: load_domain("demo", "", name) for name in ("demo",)}


def rows(domains, answer):
    return [
        {
            "domain": name,
            "session_id": session.id,
            "predicted": [[item + 1 for item in bundle] for bundle in answer(session)],
            "truth": [[item + 1 for item in bundle] for bundle in session.bundles],
        }
        for name, domain in domains.items()
        for session in asked(domain)
    ]


def asked(domain):
    return spread(domain.splits["test"], LIMIT)


def test_the_truth_is_all_right_and_the_whole_session_is_named_as_such(domains):
    after = rows(domains, lambda session: session.bundles)
    before = rows(domains, lambda session: [tuple(range(len(session)))])
    result = results(domains, LIMIT, {"after": after, "before": before}, baseline_rows(domains, LIMIT))["test"]
    true = sum(len(session.bundles) for domain in domains.values() for session in asked(domain))
    assert result["errors"]["after"] == dict.fromkeys(KINDS, 0) | {"right": true}
    assert result["errors"]["before"]["whole session"] + result["errors"]["before"]["right"] == LIMIT
    assert result["errors"]["before"] == result["errors"]["whole session"]  # the baseline that says the same
    assert result["strict"]["f1"] == 1.0


def test_differences_to_before_to_the_best_rule_of_thumb_and_to_the_trained_floor(domains):
    after = rows(domains, lambda session: session.bundles)
    nothing = rows(domains, lambda session: [])
    result = results(
        domains, LIMIT, {"after": after, "before": nothing, FROZEN: nothing}, baseline_rows(domains, LIMIT)
    )["test"]
    assert result["baselines"][FROZEN]["strict"]["f1"] == 0.0 and sum(result["errors"][FROZEN].values()) > 0
    thumb = max(
        (name for name in result["baselines"] if name not in (TRAINED, FROZEN)),
        key=lambda name: result["baselines"][name]["strict"]["f1"],
    )
    differences = {name for name in result["intervals"] if "_minus_" in name}
    assert differences == {f"after_minus_{name}" for name in ("before", thumb, TRAINED, FROZEN)}
    assert result["intervals"][f"after_minus_{thumb}"][0] == pytest.approx(
        1.0 - result["baselines"][thumb]["strict"]["f1"]
    )


def test_a_run_that_trained_nothing_has_no_row_before(domains):
    result = results(
        domains, LIMIT, {"after": rows(domains, lambda session: session.bundles)}, baseline_rows(domains, LIMIT)
    )["test"]
    assert "before" not in result and "before" not in result["errors"]
    assert set(result["errors"]) == {"after", *result["baselines"]}
