"""The report of a run: one HTML file that needs no network."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, select_autoescape

from kdjax.evaluation import KINDS, reliability, share_a_bundle
from kdjax.reporting.browser import VERDICTS, SessionView, session_view
from kdjax.reporting.files import plain, write_text
from kdjax.reporting.progress import duration
from kdjax.reporting.tables import COLUMNS, NOTHING, headline, interval_text, results

MOST_ROWS = 500  # sessions, and cards of one knowledge file, that the page holds
SECTIONS = ("name", "config", "versions", "devices", "data")  # entries of config.json with places of their own


def write_report(
    path: str | Path,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    predictions: Sequence[Mapping[str, Any]],
    cards: Mapping[str, Sequence[Mapping[str, Any]]],
    notes: Sequence[str],
    baseline: str = "",
) -> None:
    """Write `report.html` atomically. The same arguments give the same bytes.

    Args:
        path: where to write.
        config: what `config.json` holds: `name` (the title), `config` (nested fields), `versions` {package: version},
            `devices` [name] and `data` {domain: {"synthetic": bool, and whatever else describes it}}, each of which may
            be absent; other entries, such as hashes, are listed as they are.
        metrics: what `metrics.json` holds.
        history: training rows {"step", "loss", "learning_rate"} and validation rows {"epoch", "validation": {"strict"}}.
        predictions: rows of `predictions.jsonl` with `titles`, parallel to `items`, and `baseline`, what the baseline of
            that name predicts.
        cards: rows of the knowledge files by "domain/format".
        notes: what a reader must know, a sentence each; shown near the top.
    """
    from kdjax.reporting.plots import calibration, curves, forest

    config, metrics, history = plain(config), plain(metrics), plain(history)
    tables = results(metrics)
    forests = [forest(table.rows, table.title, f"forest{index}") for index, table in enumerate(tables)]
    views = [session_view(row) for row in predictions]
    groups = _reliability(predictions)
    data = config.get("data", {})
    text = page("report.html").render(
        title=config.get("name", "run"),
        headline=headline(metrics),
        synthetic=[domain for domain, facts in data.items() if facts.get("synthetic")],
        notes=notes,
        glance=_glance(config),
        facts=_flat({name: value for name, value in config.items() if name not in SECTIONS}),
        fields=_flat(config.get("config", {})),
        versions=config.get("versions", {}),
        data={domain: _flat(facts) for domain, facts in data.items()},
        columns=COLUMNS,
        kinds=KINDS,
        results=list(zip(tables, forests, strict=True)),
        judged=metrics["test"].get("pairs"),
        calibration=calibration(groups, "Calibration of pair probabilities", "calibration") if groups else None,
        curves=curves(history),
        throughput=_throughput(metrics.get("train", {})),
        stages={stage: duration(seconds) for stage, seconds in metrics.get("time", {}).items()},
        cards=cards,
        sessions=views[:MOST_ROWS],
        n_sessions=len(views),
        counts=_counts(views[:MOST_ROWS], baseline),
        baseline=baseline,
        most=MOST_ROWS,
    )
    write_text(path, text)


def _reliability(predictions: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, int]]:
    """Groups of the pairs that the student judged; none where it judged none."""
    judged = [row for row in predictions if row.get("pair_log_odds")]
    if not judged:
        return []
    truth = [
        share_a_bundle([[number - 1 for number in bundle] for bundle in row["truth"]], len(row["items"]))
        for row in judged
    ]
    return reliability(np.concatenate(truth), np.concatenate([row["pair_log_odds"] for row in judged]))


def page(name: str) -> Template:
    """One of the pages in this folder."""
    files = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=files,
        autoescape=select_autoescape(),  # of HTML, by the file's name
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["interval"] = interval_text
    return environment.get_template(name)


def _glance(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Data, models and devices in a line, as far as they are given."""
    fields, devices = config.get("config", {}), Counter(map(str, config.get("devices", [])))
    domains = [
        f"{name} (synthetic)" if facts.get("synthetic") else name for name, facts in config.get("data", {}).items()
    ]
    glance = [
        ("Data", ", ".join(domains)),
        ("Student", fields.get("student", {}).get("source")),
        ("Teacher", teacher_of(fields)),
        ("Devices", ", ".join(f"{count} × {device}" if count > 1 else device for device, count in devices.items())),
    ]
    return [(name, value) for name, value in glance if value]


def teacher_of(fields: Mapping[str, Any]) -> str | None:
    """Who taught: a model's source, or "annotations"; None where no knowledge came from a teacher."""
    teacher, formats = fields.get("teacher", {}), fields.get("knowledge", {}).get("formats", ["rules"])
    if not {"rules", "thoughts"} & {*formats}:
        return None
    return "annotations" if teacher.get("kind") == "annotations" else teacher.get("source")


def _flat(fields: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested fields as (dotted name, value), the way a command line names them."""
    rows = []
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value if isinstance(value, str) else str(value)))
    return rows


def _throughput(train: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The training's sizes and rates; empty where training was skipped."""
    if not train.get("steps"):
        return []
    seconds, real, padded = train["seconds"], train["real_tokens"], train["padded_tokens"]
    rate = [f"{tokens / seconds:,.0f}" if seconds else NOTHING for tokens in (real, padded)]
    return [
        ("steps", f"{train['steps']:,}"),
        ("examples", f"{train['examples']:,}"),
        ("real tokens", f"{real:,}"),
        ("tokens with padding", f"{padded:,}"),
        ("target tokens", f"{train['target_tokens']:,}"),
        ("time without compilation", duration(seconds)),
        ("compilation", duration(train["compile_seconds"])),
        ("real tokens per second", rate[0]),
        ("tokens per second with padding", rate[1]),
    ]


def _counts(views: Sequence[SessionView], baseline: str) -> dict[str, int]:
    """Sessions per filter of the error browser."""
    verdicts = Counter(view.verdict for view in views)
    return {
        "all": len(views),
        **{name: verdicts[name] for name in VERDICTS},
        "invalid": sum(not view.valid for view in views),
        **({f"differs from {baseline}": sum(view.differs for view in views)} if baseline else {}),
    }
