"""Records in, a file of JSON lines out: what is kept is replaced at once, so that a kill leaves the old or the new."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ... import GridClipError

# One record: a line's object; a line that is none (written by a dying disk, or by hand) counts as empty.
Record = dict[str, Any]


def shard_path(folder: pathlib.Path, stem: str, num_shards: int, shard_id: int) -> pathlib.Path:
    """Where a job whose output is in `folder` writes its lines; parallel shards do not share a file."""
    return folder / (f"{stem}.jsonl" if num_shards == 1 else f"{stem}.{shard_id}-of-{num_shards}.jsonl")


def keep_lines(path: pathlib.Path, wanted: Callable[[Record], bool]) -> bool:
    """Leaves only the lines whose record is wanted; says whether there are any. A missing file is an empty one.

    Raises:
        GridClipError: the file cannot be read or written.
    """
    with writing(path):
        kept = [line for line in _lines(path) if wanted(_record(line))]
        _replace(path, kept)
    return bool(kept)


def replace_records(path: pathlib.Path, records: Sequence[Record]) -> None:
    """Leaves only these records, at once.

    Raises:
        GridClipError: the file cannot be written.
    """
    with writing(path):
        _replace(path, [json.dumps(record, ensure_ascii=True) + "\n" for record in records])


def read_records(path: pathlib.Path) -> list[Record]:
    """The records of a file in their order; a missing file has none.

    Raises:
        GridClipError: the file cannot be read.
    """
    try:
        return [record for line in _lines(path) if (record := _record(line))]
    except OSError as error:
        raise GridClipError(f"cannot read {path}: {error.strerror}") from error


def find_files(folder: pathlib.Path, stem: str) -> list[pathlib.Path]:
    """The files of all jobs whose output is in `folder`: that of one alone, then those of shards, sorted."""
    return [path for path in [folder / f"{stem}.jsonl", *sorted(folder.glob(f"{stem}.*-of-*.jsonl"))] if path.is_file()]


def read_all(folder: pathlib.Path, stem: str) -> list[Record]:
    """The records of `find_files`."""
    return [record for path in find_files(folder, stem) for record in read_records(path)]


def add_records(path: pathlib.Path, records: Sequence[Record]) -> None:
    """Appends lines.

    Raises:
        GridClipError: the file cannot be written.
    """
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(record, ensure_ascii=True) + "\n" for record in records))


def as_line(record: Any) -> str:
    """A dataclass as one line; ids that are not UTF-8 are escaped."""
    return json.dumps(dataclasses.asdict(record), ensure_ascii=True) + "\n"


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Turns the system's errors into one sentence."""
    try:
        yield
    except OSError as error:
        raise GridClipError(f"cannot write {path}: {error.strerror}; finished videos are kept") from error


def _replace(path: pathlib.Path, lines: Sequence[str]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text("".join(lines), encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return []


def _record(line: str) -> Record:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
