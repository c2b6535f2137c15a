"""A path in, the file's text, lines and JSON out; what is wrong with them becomes an error with file and line."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import json
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any

from ... import GridClipError
from ...dali_pipes.ordinary_file import refuse_special_file


@dataclasses.dataclass(frozen=True)
class TextFile:
    """A file of text.

    Attributes:
        path: where it is, for messages.
        text: all of it.
    """

    path: pathlib.Path
    text: str

    @classmethod
    def read(cls, path: pathlib.Path) -> TextFile:
        """Reads UTF-8 (a byte order mark and any line ends will do), as it is or gzipped.

        Raises:
            GridClipError: the file cannot be read, or is no such text.
        """
        try:
            refuse_special_file(path)
            content = path.read_bytes()
            if content[:2] == b"\x1f\x8b":
                content = gzip.decompress(content)
            return cls(path, content.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise GridClipError(f"{path}, line {line}: not UTF-8 text ({error.reason})") from error
        except (OSError, EOFError, zlib.error) as error:
            raise GridClipError(f"cannot read {path}: {error}") from error

    @property
    def looks_like_json(self) -> bool:
        """Whether it begins as a JSON object or list does."""
        return self.text.lstrip()[:1] in ("{", "[")

    @functools.cached_property
    def json(self) -> Any:
        """The whole file as JSON.

        Raises:
            GridClipError: it is malformed.
        """
        try:
            return json.loads(self.text)
        except json.JSONDecodeError as error:
            raise GridClipError(
                f"{self.path}, line {error.lineno}: malformed JSON: {error.msg} (column {error.colno})"
            ) from error
        except (RecursionError, ValueError) as error:
            raise GridClipError(f"{self.path}: malformed JSON: {error}") from error

    def lines(self) -> Iterator[tuple[int, str]]:
        """Lines that are not blank, with their numbers from 1; only line feeds end a line, as in an editor."""
        for number, line in enumerate(self.text.split("\n"), start=1):
            if line.strip():
                yield number, line.rstrip("\r")


def json_kind(value: object) -> str:
    """JSON's word for the kind of a parsed value."""
    return {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")
