import pytest
from knowledge_helpers import make_session

from kdjax.knowledge.rule_lines import rule_lines

SESSION = make_session(titles=("Acme HDMI Cable 2m High Speed Black", "Garden hose", "Teapot"))


@pytest.mark.parametrize(
    "line",
    [
        "1. Cables go with what they connect.",
        "(2) Cables go with what they connect.",
        "- Cables go with what they connect.",
        "* **Cables go with what they connect.**",
        "Rule 3: Cables go with what they connect.",
        "**Rule 3:** Cables go with what they connect.",
        '  •  "Cables  go with what they connect."  ',
    ],
)
def test_numbering_bullets_and_markdown_are_stripped(line):
    assert rule_lines(line, SESSION, finished=True) == (["Cables go with what they connect."], {})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Here are three rules:", "no sentence"),
        ("Related products.", "no sentence"),
        ("Could a cable go with a television?", "question"),
        ("Cables " + "and cables " * 13, "overlong"),
        ("Put product 3 with the cable.", "product number"),
        ("The bundle [1,3] holds two cables.", "product number"),
        ("The products 1 and 3 belong together.", "product number"),
        ("Keep 1, 3 in one bundle.", "product number"),
        ("Buy the HDMI cable 2m high with a television.", "quoted title"),
        ("A garden hose belongs to a nozzle.", "quoted title"),
        ("The first rule is to find products.", "about the conversation"),
        ("Check the product numbers of each bundle.", "about the conversation"),
        ("I put cables with what they connect.", "about the conversation"),
    ],
)
def test_what_is_no_general_rule_is_dropped_with_a_reason(line, reason):
    assert rule_lines(f"{line}\nCables go with what they connect.", SESSION, finished=True) == (
        ["Cables go with what they connect."],
        {reason: 1},
    )


@pytest.mark.parametrize(
    "line",
    [
        "A bundle holds at least 2 products.",
        "Bundle 2 or more products of one brand.",
        "USB 3.0 hubs go with USB 3.0 drives.",
        "An HDMI cable goes with a television.",
        "A teapot goes with cups and tea.",
        'Bundle "Cases" with "Screen Protectors"',
    ],
)
def test_a_general_rule_stays_as_it_is(line):
    assert rule_lines(line, SESSION, finished=True) == ([line], {})


def test_a_cut_off_last_line_and_a_repeat_are_dropped():
    text = "1. Cables go with what they connect.\n2. Cables go with what they connect.\n\n3. Never bundle products that"
    rules, dropped = rule_lines(text, SESSION, finished=False)
    assert rules == ["Cables go with what they connect."]
    assert dropped == {"repeated": 1, "cut off": 1}
    whole = "Cables go with what they connect."
    assert rule_lines(whole, SESSION, finished=False) == ([whole], {})
