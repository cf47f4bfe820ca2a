"""Bundles for new sessions from a trained adapter: what a shop runs every night.

    python launch.py --config=configs/generate.py --config.student.adapter=runs/<run>/adapter \\
        --config.generate.sessions_file=new/sessions.jsonl --config.generate.items_file=new/items.jsonl

A line of sessions.jsonl is a session, of items.jsonl a product:

    {"id": "s1", "items": ["B01", "B02", "B03"]}
    {"id": "B01", "title": "Espresso machine", "categories": [["Kitchen", "Coffee"]]}

A session may hold its products itself, and then standard input and output do:

    echo '{"id": "s1", "products": [{"title": "Espresso machine"}, {"title": "Burr grinder"}]}' | \\
        python launch.py --config=configs/generate.py --config.student.adapter=runs/<run>/adapter \\
        --config.generate.sessions_file=- --config.generate.out=-

Each line is answered with a line, as soon as some of them are done:

    {"session_id": "s1", "bundles": [{"items": ["B01", "B03"], "probability": 0.83}], "no_bundle": 0.11}

`no_bundle` is the probability that no two products belong together. A bundle less probable than that is not named, so
`bundles` may be empty. A student that writes its answers gives no probabilities. Products need categories where the adapter
was trained with them ("fields" in adapter/kdjax.json); without them the answers are much worse, and a warning says so.
"""

from configs.base import base, variant


def get_config(arg: str = ""):
    config = variant(base("generate"), arg)
    config.job = "generate"
    # As in the run that trained the adapter, its base included.
    config.student.update(source="", answer="", pair_layers=0)
    config.eval.orders = 0
    return config
