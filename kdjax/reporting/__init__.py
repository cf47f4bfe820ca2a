"""What a run leaves for people: its log and progress, its tables, its report; and JSON files for everyone."""

from kdjax.reporting.card import write_model_card
from kdjax.reporting.files import (
    is_leftover,
    json_line,
    numbered_jsonl,
    open_to_append,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
    write_text,
)
from kdjax.reporting.progress import Progress, duration
from kdjax.reporting.report import write_report
from kdjax.reporting.runlog import ConsoleLog, RunLog, plain_console
from kdjax.reporting.study import write_study
from kdjax.reporting.tables import headline, results_markdown, results_table

__all__ = [
    "ConsoleLog",
    "Progress",
    "RunLog",
    "duration",
    "headline",
    "is_leftover",
    "json_line",
    "numbered_jsonl",
    "open_to_append",
    "plain_console",
    "read_json",
    "read_jsonl",
    "results_markdown",
    "results_table",
    "write_json",
    "write_jsonl",
    "write_model_card",
    "write_report",
    "write_study",
    "write_text",
]
