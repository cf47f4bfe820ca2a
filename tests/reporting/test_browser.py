import pytest

from kdjax.reporting.browser import session_view


def view(truth, predicted, n=5):
    return session_view(
        {
            "domain": "demo",
            "session_id": "s1",
            "items": [f"i{k}" for k in range(n)],
            "titles": [f"title {k}" for k in range(1, n + 1)],
            "truth": truth,
            "predicted": predicted,
            "text": "raw",
            "valid": True,
            "prompt_tokens": 10,
            "completion_tokens": 3,
        }
    )


@pytest.mark.parametrize(
    "predicted, verdict",
    [
        ([[1, 2], [3, 4, 5]], "right"),
        ([[5, 4, 3], [2, 1], [1, 2]], "right"),  # order and repeats do not matter
        ([[1, 2]], "partly right"),
        ([[3, 4]], "partly right"),  # two products of a true bundle
        ([[1, 2, 3], [1, 2], [3, 4, 5]], "partly right"),  # one set too many
        ([[2, 3], [1, 5]], "wrong"),
        ([[1]], "wrong"),
        ([], "wrong"),
    ],
)
def test_verdict(predicted, verdict):
    assert view([[1, 2], [3, 4, 5]], predicted).verdict == verdict


@pytest.mark.parametrize(
    "predicted, remark",
    [
        ([3, 4, 5], "right, true B"),
        ([3, 4], "missed product, near true B: misses 5"),
        ([1, 2, 5], "wrong product, near true A: wrongly has 5"),
        ([1, 3], "wrong product, near true A: misses 2; wrongly has 3"),  # Jaccard 1/3 against 1/4
        ([6], "wrong bundle: nothing in common with a true one"),
    ],
)
def test_remark_compares_with_the_most_similar_true_bundle(predicted, remark):
    assert view([[1, 2], [3, 4, 5]], [predicted], n=6).predicted[0].remark == remark


def test_bundles_get_letters_and_products_the_letters_of_their_bundles():
    session = view([[1, 2], [2, 3]], [[2, 3], [3, 2]])
    assert [(bundle.letter, bundle.numbers, bundle.remark) for bundle in session.true] == [
        ("A", (1, 2), "not found"),
        ("B", (2, 3), "found"),
    ]
    assert [(bundle.letter, bundle.remark) for bundle in session.predicted] == [
        ("a", "right, true B"),
        ("b", "named before"),
    ]
    assert session.products[1].true == ("A", "B") and session.products[1].predicted == ("a", "b")
    assert session.products[4].true == session.products[4].predicted == ()


def test_letters_do_not_run_out():
    letters = [bundle.letter for bundle in view([], [[1, 2]] * 60).predicted]
    assert len(set(letters)) == 60 and letters[26] == "a1"
