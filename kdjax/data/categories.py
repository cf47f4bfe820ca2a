"""The category column of the BundleRec files, which is neither JSON nor CSV."""

import re

from kdjax.data.sessions import CategoryPath


def parse_categories(text: str) -> tuple[CategoryPath, ...]:
    """Category paths from `[[Clothing, Shoes & Jewelry,Men],[Novelty,Socks]]`; `[[]]` is no category at all.

    Names stand without quotes and may hold commas, so paths split at `],[` and names at a comma that no space follows.

    Raises:
        ValueError: the text is not of this form (no outer brackets, or a bracket inside a name).
    """
    text = text.strip()
    if not (text.startswith("[[") and text.endswith("]]") and len(text) >= 4):
        raise ValueError(f"the categories {text[:80]!r} are not of the form [[A,B,C],[A,D]]")
    paths = []
    for path in text[2:-2].split("],["):
        if "[" in path or "]" in path:
            raise ValueError(f"the category path {path[:80]!r} has a bracket inside")
        names = tuple(name.strip() for name in re.split(r",(?! )", path))
        paths.append(tuple(name for name in names if name))
    return tuple(path for path in paths if path)
