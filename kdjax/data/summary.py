"""A domain in a few lines for the console."""

from kdjax.data.sessions import Domain


def describe(domain: Domain) -> str:
    """Name, source, sessions and bundles of each split, products, and what was read but left out."""
    source = f"{domain.source}, synthetic" if domain.synthetic else domain.source
    lines = [f"{domain.name} ({source}, data {domain.digest[:8]})"]
    for part, sessions in domain.splits.items():
        n_bundles = sum(len(session.bundles) for session in sessions)
        lines.append(f"  {part:<10} {len(sessions):>5} sessions {n_bundles:>6} bundles")
    if domain.without_bundles:
        lines.append(f"  {'no bundle':<10} {len(domain.without_bundles):>5} sessions, to calibrate by")
    products = {item for sessions in domain.splits.values() for session in sessions for item in session.items}
    lines.append(f"  {'products':<10} {len(products):>5}")
    left_out = [f"{count} {what}" for what, count in domain.left_out.items() if count]
    if left_out:
        lines.append(f"  left out: {', '.join(left_out)}")
    if not domain.annotated:
        lines.append("  no annotated bundles: nothing can be trained or scored on it")
    return "\n".join(lines)
