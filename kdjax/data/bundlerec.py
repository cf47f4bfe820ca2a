"""The files of the public bundle data (BundleRec, SIGIR 2022), with the official de-duplication and split.

`root/name/` holds comma-separated files, each with a header:

    session_item.csv     session ID,item ID       the rows' order is the products' order in the session
    session_bundle.csv   session ID,bundle ID     the order in which sessions first appear decides the split
    bundle_item.csv      bundle ID,item ID
    bundle_intent.csv    bundle ID,intent
    item_titles.csv      item ID,titles
    item_categories.csv  item ID,categories       [[A,B,C],[A,D]], or with quotes [["A","B","C"],["A","D"]]
    user_session.csv     user ID,session ID       if it is there: leak checks count shared users

Every product of a session that has a bundle needs a title and a category row. The titles published with the data cover the
products of bundles alone, which gives the others away; the complete files are those of llm4sr/PO4ISR. Even those name few of
the products of sessions without a bundle: such a session is kept, to calibrate by, with its products that have a title, if
there are two or more.
"""

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from kdjax.data.categories import joined_names, joined_reason, parse_categories, separated_by_spaces
from kdjax.data.deduplicate import deduplicate
from kdjax.data.files import domain_folder, is_missing, one_line
from kdjax.data.fingerprint import fingerprint
from kdjax.data.sessions import CategoryPath, Domain, Session
from kdjax.data.split import official_split
from kdjax.data.tables import fault, members, near_id, one_value
from kdjax.errors import InputError


def load_bundlerec(root: str, name: str) -> Domain:
    """Read the domain in `root/name/`; a file that is not whole is an InputError with the file and the row."""
    folder = domain_folder(root, name)
    items_of = members(folder / "session_item.csv", ("session ID", "item ID"))
    bundles_of = _bundles_by_session(folder, items_of)
    if not bundles_of:
        raise InputError(f"{folder / 'session_bundle.csv'}: no session has a bundle")
    titles, categories = _titles(folder), _categories(folder)
    kept = {bundle for bundles in bundles_of.values() for bundle in bundles}
    intents = _intents(folder, kept)
    left_out = Counter(
        {
            "sessions without a bundle": len(items_of) - len(bundles_of),
            "intents of bundles that no session has": len(intents.keys() - kept),
        }
    )
    sessions = []
    for session_id, bundles in bundles_of.items():
        items = items_of[session_id]
        for item, row in items.items():
            for table, file in ((titles, "item_titles.csv"), (categories, "item_categories.csv")):
                if item not in table:
                    reason = f"the item {item} has no row in {file}; every product of a session with a bundle needs one"
                    reason += near_id(item, table)
                    raise fault(folder / "session_item.csv", row, reason)
        place = {item: position for position, item in enumerate(items)}
        session = Session(
            id=session_id,
            items=tuple(items),
            titles=tuple(titles[item] for item in items),
            categories=tuple(categories[item] for item in items),
            bundles=tuple(tuple(sorted(place[item] for item in bundle)) for bundle in bundles.values()),
            intents=tuple(one_line(intents[bundle][1]) if bundle in intents else "" for bundle in bundles),
        )
        session, dropped = deduplicate(session)
        sessions.append(session)
        left_out.update(dropped)
    splits = official_split(sessions)
    without = tuple(
        Session(id, named, tuple(titles[item] for item in named), tuple(categories[item] for item in named))
        for id, products in items_of.items()
        if id not in bundles_of
        and len(named := tuple(item for item in products if item in titles and item in categories)) > 1
    )
    users = _users(folder, items_of)
    return Domain(name, "bundlerec", splits, fingerprint(splits), left_out, users=users, without_bundles=without)


def _bundles_by_session(folder: Path, items_of: dict[str, dict[str, int]]) -> dict[str, dict[str, list[str]]]:
    """Session → {bundle: its items}, sessions and bundles in the order of session_bundle.csv."""
    path, item_path = folder / "session_bundle.csv", folder / "bundle_item.csv"
    bundle_items = members(item_path, ("bundle ID", "item ID"))
    session_of: dict[str, str] = {}
    bundles_of: dict[str, dict[str, list[str]]] = {}
    for session, bundles in members(path, ("session ID", "bundle ID")).items():
        for bundle, row in bundles.items():
            if session not in items_of:
                raise fault(
                    path, row, f"the session {session} has no products in session_item.csv{near_id(session, items_of)}"
                )
            if bundle in session_of:
                raise fault(path, row, f"the bundle {bundle} is a duplicate: session {session_of[bundle]} has it too")
            if bundle not in bundle_items:
                near = near_id(bundle, bundle_items)
                raise fault(path, row, f"the bundle {bundle} has no items in bundle_item.csv{near}")
            session_of[bundle] = session
            bundles_of.setdefault(session, {})[bundle] = list(bundle_items[bundle])
    for bundle, items in bundle_items.items():
        row = next(iter(items.values()))
        if bundle not in session_of:
            near = near_id(bundle, session_of)
            raise fault(item_path, row, f"the bundle {bundle} belongs to no session in session_bundle.csv{near}")
        if len(items) < 2:
            raise fault(item_path, row, f"the bundle {bundle} has one item; a bundle has two or more")
        for item, row in items.items():
            session = session_of[bundle]
            if item not in items_of[session]:
                near = near_id(item, items_of[session])
                raise fault(item_path, row, f"the item {item} of bundle {bundle} is not in its session {session}{near}")
    return bundles_of


def _intents(folder: Path, kept: set[str]) -> dict[str, tuple[int, str]]:
    """Bundle → (row, intent). Intents of other bundles are passed over, but not if there are no others."""
    path = folder / "bundle_intent.csv"
    intents = one_value(path, ("bundle ID", "intent"))
    for bundle, (row, intent) in intents.items():
        if is_missing(intent):
            raise fault(path, row, f"the intent of bundle {bundle} is {intent!r}; leave it empty where none is known")
    if intents and not intents.keys() & kept:
        bundle, (row, _) = next(iter(intents.items()))
        reason = f"no bundle of this file belongs to a session; the first is {bundle}{near_id(bundle, kept)}"
        raise fault(path, row, reason)
    return intents


def _users(folder: Path, items_of: Collection[str]) -> dict[str, str]:
    path = folder / "user_session.csv"
    sessions_of = members(path, ("user ID", "session ID")) if path.is_file() else {}
    users: dict[str, str] = {}
    for user, sessions in sessions_of.items():
        for session, row in sessions.items():
            if session in users:
                raise fault(path, row, f"the session {session} is a duplicate: user {users[session]} has it too")
            users[session] = user
    if users and not users.keys() & set(items_of):
        session = next(iter(users))
        reason = f"no session of this file is in session_item.csv; the first is {session}{near_id(session, items_of)}"
        raise fault(path, 2, reason)
    return users


def _titles(folder: Path) -> dict[str, str]:
    path = folder / "item_titles.csv"
    titles = {}
    for item, (row, text) in one_value(path, ("item ID", "titles")).items():
        titles[item] = one_line(text)
        if not titles[item]:
            raise fault(path, row, f"the item {item} has an empty title")
        if is_missing(text):
            raise fault(path, row, f"the title of item {item} is {text!r}, a missing value; write its title")
    return titles


def _categories(folder: Path) -> dict[str, tuple[CategoryPath, ...]]:
    path = folder / "item_categories.csv"
    categories, table = {}, one_value(path, ("item ID", "categories"))
    for item, (row, text) in table.items():
        try:
            categories[item] = parse_categories(text)
        except ValueError as error:
            raise fault(path, row, f"item {item}: {error}") from error
    if spaced := separated_by_spaces([text for _, text in table.values()]):
        row = next(row for row, text in table.values() if text == spaced)
        reason = f"every comma of this column has a space after it, so {spaced[:80]} is one name"
        raise fault(path, row, f'{reason}; write [[A,B]] for two names, or with quotes [["A, B"]] for one')
    if joined := joined_names(path for paths in categories.values() for path in paths):
        raise InputError(f"{path}: {joined_reason(joined)}")
    return categories
