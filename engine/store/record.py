"""A store folder in, its record (store.json) out: read, claimed by writers, required by readers; changes are locked."""

from __future__ import annotations

import collections.abc
import contextlib
import fcntl
import json
import os
import pathlib
from typing import Any

from ... import GridClipError
from ...dali_pipes.sampling import completed

FORMAT = 2  # 1: the rows do not say of which level and grid size they are
RECORD_FILE = "store.json"
LOCK_FILE = ".lock"
# Not the name: `ViT-L/14` and `ViT-L-14.pt` are the same weights. What says most about a difference comes first.
MODEL_SETTINGS = ("precision", "image_size", "context_length", "embed_dim", "fingerprint")
# Sampling settings that are recorded only where a job has others.
SAMPLING_DEFAULTS: dict[str, Any] = {"cells": False, "stride": None, "decode": "exact"}
EMPTY: dict[str, Any] = {"format": FORMAT, "model": None, "sampling": None}


class Record:
    """The record of the store at a path: its format, model and sampling settings."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def claim(self, section: str, given: dict[str, Any]) -> dict[str, Any]:
        """What the record holds, after `given` was put there if it held nothing."""
        with self.locked():
            record = self.read()
            if record[section] is None:
                record[section] = given
                self.write(record)
            held: dict[str, Any] = record[section]
            return held

    def require_equal(
        self, section: str, stored: dict[str, Any], given: dict[str, Any], settings: collections.abc.Iterable[str]
    ) -> None:
        for name in settings:
            if stored.get(name) != given.get(name):
                stored_as, given_as = (f" ({record['name']})" if "name" in record else "" for record in (stored, given))
                raise GridClipError(
                    f"the store {self.path} was made with {section} {name} = {stored.get(name)!r}{stored_as}, "
                    f"this run has {given.get(name)!r}{given_as}: use the same {section}, another "
                    "`store`, or `overwrite=True`"
                )

    @contextlib.contextmanager
    def locked(self) -> collections.abc.Iterator[None]:
        """Keeps other processes out while the record is changed or a dataset is created."""
        try:
            lock = (self.path / LOCK_FILE).open("a")
        except OSError as error:
            raise GridClipError(
                f"cannot write to the store {self.path}: {error.strerror}; reading it needs no rights, "
                "this command does: give another `store`, or the right to write"
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def read(self) -> dict[str, Any]:
        path = self.path / RECORD_FILE
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            problem = _problem(record)
            if problem:
                raise ValueError(problem)
        except FileNotFoundError as error:
            raise GridClipError(no_store(self.path)) from error
        except (OSError, ValueError, RecursionError) as error:
            raise GridClipError(
                f"{path} cannot be read as a store's record: {error}; bring the file back from a copy, "
                "or embed into another `store`"
            ) from error
        if record["format"] > FORMAT:
            raise GridClipError(
                f"the store {self.path} has format {record['format']}, this version reads up to "
                f"{FORMAT}: upgrade gridclip"
            )
        if isinstance(record["sampling"], dict):
            record["sampling"] = completed(record["sampling"])
        return record

    def write(self, record: dict[str, Any]) -> None:
        new = self.path / f".{RECORD_FILE}.{os.getpid()}"
        try:
            with new.open("w", encoding="utf-8") as file:
                json.dump(record, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path / RECORD_FILE)
        except OSError as error:
            raise GridClipError(f"could not write {self.path / RECORD_FILE}: {error}") from error


def _problem(record: Any) -> str | None:
    """What keeps a parsed store.json from being a record, None where nothing does; newer formats may hold more."""
    if not isinstance(record, dict) or not {"format", "model", "sampling"} <= record.keys():
        return "not a store's record, expected an object with format, model and sampling"
    if type(record["format"]) is not int or record["format"] < 1:  # true is an int, too
        return f"format is {record['format']!r}, expected a whole number from 1"
    for section in ("model", "sampling"):
        if not isinstance(record[section], dict | None):
            return f"{section} is {str(record[section])[:40]!r}, expected an object or null"
    width = (record["model"] or {}).get("embed_dim", 1)
    if type(width) is not int or width < 1:
        return f"embed_dim of the model is {str(width)[:40]!r}, expected a whole number from 1"
    return None


def as_read_back(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as a record gives them back: tuples become lists and so on."""
    read_back: dict[str, Any] = json.loads(json.dumps(settings))
    return read_back


def no_store(path: pathlib.Path) -> str:
    """What to say where there is no store."""
    if not path.exists():
        return f"there is no store at {path}: run gridclip embed-videos, embed-images or import-features first"
    return f"{path} is not a store (it has no {RECORD_FILE}): give the directory that an embed command wrote"
