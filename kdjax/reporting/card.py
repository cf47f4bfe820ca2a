"""The model card of an adapter, its README.md: what it is, the run's own numbers, how to use it and on what terms."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdjax.reporting.files import plain, read_json, write_text
from kdjax.reporting.report import page, teacher_of
from kdjax.reporting.tables import headline, results_markdown

METRICS = {"f1": "F1", "precision": "precision", "recall": "recall", "pair_f1": "pair F1"}  # of the strict ones
EXAMPLES = {"Espresso machine": ["Kitchen", "Coffee"], "Garden hose": ["Garden"], "Burr grinder": ["Kitchen", "Coffee"]}
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the values that --max-lora-rank takes


def write_model_card(
    folder: Path,
    name: str,
    run: Mapping[str, Any],
    metrics: Mapping[str, Any],
    data: Mapping[str, Mapping[str, Any]],
    notes: Sequence[str],
) -> None:
    """Write README.md into an adapter folder, by its kdjax.json and adapter_config.json. The same arguments give the same bytes.

    Args:
        folder: the adapter's.
        name: the run's.
        run: what the run's config.json holds: `config`, `hash`, `versions`, `devices`.
        metrics: what the run's metrics.json holds.
        data: domain → {"source", "license" ("": none stated), "synthetic", "sessions": {split: how many}}.
        notes: what a reader must know, a sentence each.
    """
    trained, lora = read_json(folder / "kdjax.json"), read_json(folder / "adapter_config.json")
    base, metrics = trained["base"], plain(metrics)
    licenses = {base["license"], *(facts["license"] for facts in data.values())}
    text = page("model_card.md.jinja").render(
        name=name,
        folder=folder.name,
        base=base,
        writes=trained["answer"] == "text",
        thoughts_first=trained["thoughts_first"],
        layers=trained["pair_layers"],
        fields=trained["products"]["fields"],
        title_words=trained["products"]["title_words"],
        kind=_kind(lora),
        run=run["hash"],
        license=licenses.pop() if len(licenses) == 1 and "" not in licenses else "other",
        data=data,
        synthetic=[domain for domain, facts in data.items() if facts["synthetic"]],
        products=_products(trained["products"]["fields"]),
        vllm_rank=_vllm_rank(lora),
        metrics={domain: _metrics(result["strict"]) for domain, result in metrics["domains"].items()},
        headline=headline(metrics),
        tables=results_markdown(metrics).rstrip(),
        notes=notes,
        training=_training(lora, base, run["config"], metrics["train"]),
        versions=run["versions"],
        devices=[f"{count} × {device}" for device, count in Counter(run["devices"]).items()],
    )
    write_text(folder / "README.md", text + "\n")


def _kind(lora: Mapping[str, Any]) -> str:
    return "DoRA" if lora["use_dora"] else "LoRA"


def _vllm_rank(lora: Mapping[str, Any]) -> int | None:
    """What vLLM is to be started with; None where it cannot read the adapter."""
    if lora["use_dora"] or lora["rank_pattern"] or lora["alpha_pattern"]:
        return None
    return next((most for most in VLLM_RANKS if most >= lora["r"]), lora["r"])


def _products(fields: Sequence[str]) -> list[str]:
    """The example session, a product as Python each, with categories where the adapter was trained with them."""
    session = [{"title": title, "categories": [path]} for title, path in EXAMPLES.items()]
    shown = ["title"] if tuple(fields) == ("title",) else ["title", "categories"]
    return [json.dumps({name: product[name] for name in shown}) for product in session]


def _metrics(strict: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """The model-index's metrics of one domain, those that are numbers."""
    return [
        {"type": name, "name": f"strict {title}", "value": strict[name]}
        for name, title in METRICS.items()
        if strict[name] is not None
    ]


def _training(
    lora: Mapping[str, Any], base: Mapping[str, Any], config: Mapping[str, Any], train: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """How the adapter was made, in (what, value)."""
    settings = config["train"]
    rows = [
        ("base", f"`{base['source']}`" + (f", weights in {base['quantization']}" if base["quantization"] else "")),
        ("adapter", f"{_kind(lora)}, rank {lora['r']}, alpha {lora['lora_alpha']:g}"),
        ("scale of the update", f"alpha / {'√' if lora['use_rslora'] else ''}rank"),
        *((name.replace("_", " "), str(lora[name])) for name in ("rank_pattern", "alpha_pattern") if lora[name]),
        ("targets", ", ".join(sorted({path.rpartition(".")[2] for path in lora["target_modules"]}))),
        ("knowledge", ", ".join(config["knowledge"]["formats"]) or "none"),
        ("teacher", teacher_of(config) or "none"),
        (
            "steps",
            f"{train['steps']:,} of {settings['batch_size']} sessions, learning rate {settings['learning_rate']:g}",
        ),
        ("seed", str(config["seed"])),
    ]
    return rows
