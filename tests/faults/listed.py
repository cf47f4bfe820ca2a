"""How a list of bad inputs becomes tests."""

import pytest


def each(names: str, table: dict[str, tuple]):
    """A test for each entry of a table: the values that `names` name, and as `words` the rest, all that the error has to say."""
    count = len(names.split(", "))
    cases = [pytest.param(*case[:count], case[count:], id=what) for what, case in table.items()]
    return pytest.mark.parametrize(f"{names}, words", cases)
