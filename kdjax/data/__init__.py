"""Sessions and bundles: BundleRec files, JSONL of one's own, the synthetic demo domain, grocery baskets; their split and their leak proof."""

from kdjax.data.domains import DATA_SOURCES, load_annotated, load_domain
from kdjax.data.leaks import leak_counts, prove_sources
from kdjax.data.new_sessions import NewSession, NewSessionReader, session_of_products
from kdjax.data.sessions import CategoryPath, Domain, Session, category_names, leaf_category, reorder
from kdjax.data.summary import describe

__all__ = [
    "DATA_SOURCES",
    "CategoryPath",
    "Domain",
    "NewSession",
    "NewSessionReader",
    "Session",
    "category_names",
    "describe",
    "leaf_category",
    "leak_counts",
    "load_annotated",
    "load_domain",
    "prove_sources",
    "reorder",
    "session_of_products",
]
