"""Bundles for new sessions from a trained adapter: what a shop runs.

    python launch.py --config=configs/generate.py --config.student.adapter=runs/<run>/adapter \\
        --config.generate.sessions_file=new/sessions.jsonl --config.generate.items_file=new/items.jsonl

sessions.jsonl: {"id": "s1", "items": ["B01", "B02", …]}     items.jsonl: {"id": "B01", "title": "…", "categories": [["Home", "Mugs"]]}
Categories are needed where the adapter was trained with them ("fields" in adapter/kdjax.json).

Writes <workdir>/bundles.jsonl, a row per session: {"session_id", "bundles": [[item ids]], "valid", "text"}. The prompt is the
one that the adapter was trained with (adapter/kdjax.json).
"""

from configs.base import base, variant


def get_config(arg: str = ""):
    config = variant(base("generate"), arg)
    config.job = "generate"
    config.eval.constraint = "items"  # a shop has no use for an invalid answer
    config.eval.update(orders=0, max_new_tokens=0)  # 0 and "": as in the run that trained the adapter
    config.student.update(answer="", pair_layers=0)
    return config
