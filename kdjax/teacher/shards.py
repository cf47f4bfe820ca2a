"""Sealed answers on disk: memory-mapped Arrow with a checksum, complete or absent."""

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kdjax.teacher.calls import Answer, sha256_json
from kdjax.teacher.journal import fsync_folder

if TYPE_CHECKING:  # `datasets` takes seconds to import, and a run whose knowledge is there needs none of it
    from datasets import Dataset

CHECKSUMS = "sha256sums.txt"  # in the form that `sha256sum --check` reads
UNFINISHED = ".unfinished-"


class Damaged(Exception):
    """Answers on the disk are not what was written; the reason."""


def write_shard(folder: Path, answers: Iterable[Answer]) -> Path:
    """Write answers as a new shard of `folder` and return its path, named by its keys and texts.

    Rows are sorted by key, and nothing but the answers goes in: the same answers give the same bytes whatever the order
    they came in. The shard is written aside and renamed when it is on the disk.
    """
    import pyarrow as pa
    from datasets import Dataset

    answers = sorted(answers, key=lambda answer: answer.key)
    # The texts too: a call without an answer may be asked again, and the new shard then holds the same keys.
    name = sha256_json([(answer.key, answer.text, answer.finish_reason) for answer in answers])[:16]
    if (folder / name).is_dir():
        return folder / name
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(UNFINISHED + "*"):
        shutil.rmtree(leftover)
    unfinished = folder / (UNFINISHED + name)
    table = pa.Table.from_pylist([answer.to_row() for answer in answers], schema=_schema())
    _save_quietly(Dataset(table, fingerprint=name), unfinished)
    (unfinished / CHECKSUMS).write_text(_checksums(unfinished))
    for path in unfinished.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    fsync_folder(unfinished)
    unfinished.rename(folder / name)
    fsync_folder(folder)
    return folder / name


def shard_folders(folder: Path) -> list[Path]:
    """The complete shards of `folder`, by name."""
    return sorted(path for path in folder.glob("*") if path.is_dir() and not path.name.startswith(UNFINISHED))


def open_shard(path: Path) -> "Dataset":
    """Check a shard against its checksums and map it into memory.

    Raises:
        Damaged: a file is missing, added or changed.
    """
    from datasets import load_from_disk

    try:
        if (path / CHECKSUMS).read_text(errors="replace") != _checksums(path):
            raise Damaged(f"its files do not match {CHECKSUMS}")
        return load_from_disk(str(path))
    except FileNotFoundError as error:  # lost, or just set aside by another run
        raise Damaged(f"{error.filename} is missing") from error
    except (OSError, ValueError) as error:  # the latter: Arrow's, of a file that is none though its checksum is right
        raise Damaged(f"it cannot be read: {error}") from error


def set_aside(path: Path, folder: Path) -> None:
    """Move a damaged shard into `folder`, beside what was moved there before."""
    count = len(list(folder.glob(f"{path.name}*")))
    path.rename(folder / (f"{path.name}-{count + 1}" if count else path.name))
    fsync_folder(folder)
    fsync_folder(path.parent)


def _schema():
    import pyarrow as pa

    integers, floats = pa.list_(pa.int32()), pa.list_(pa.float32())
    return pa.schema(
        {
            "key": pa.string(),
            "fields": pa.string(),
            "text": pa.string(),
            "finish_reason": pa.string(),
            "prompt_tokens": pa.int32(),
            "completion_tokens": pa.int32(),
            "prompt_ids": integers,
            "token_ids": integers,
            "target_logprobs": floats,
            "logsumexp": floats,
            "top_ids": pa.list_(integers),
            "top_logprobs": pa.list_(floats),
        }
    )


def _save_quietly(dataset: "Dataset", path: Path) -> None:
    import datasets

    silent = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        dataset.save_to_disk(str(path))
    finally:
        if not silent:
            datasets.enable_progress_bars()


def _checksums(shard: Path) -> str:
    lines = []
    for path in sorted(shard.iterdir()):
        if path.name != CHECKSUMS:
            with path.open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    return "".join(lines)
