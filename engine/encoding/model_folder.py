"""A model folder in, its settings (model.json) and the paths of its graphs out."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from ... import GridClipError
from ...dali_pipes.ordinary_file import refuse_special_file

FORMAT = 1
# What model.json must say. A larger image or text than these would be taken for damage long before memory runs out.
TEXTS = ("name", "precision", "fingerprint")
NUMBERS = {
    "image_size": (1, 8192),
    "embed_dim": (1, 65536),
    "context_length": (2, 65536),
    "start_token": (0, 2**31),
    "end_token": (0, 2**31),
}


def read_info(model_dir: pathlib.Path) -> dict[str, Any]:
    """The content of model.json.

    Raises:
        GridClipError: `model_dir` is no model folder, or one of another format.
    """
    path = model_dir / "model.json"
    try:
        refuse_special_file(path)
        info = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        message = f"{model_dir} is not a model folder (it has no model.json): make one with gridclip export"
        raise GridClipError(message) from error
    except (OSError, ValueError, RecursionError) as error:
        raise GridClipError(f"{path} cannot be read: {error}; export the model again") from error
    found = info.get("format") if isinstance(info, dict) else None
    if type(found) is not int or found != FORMAT:  # true is 1, too
        raise GridClipError(f"{path} has format {found}, expected {FORMAT}: export the model again")
    missing = [name for name in (*TEXTS, *NUMBERS) if name not in info]
    if missing:
        raise GridClipError(f"{path} lacks {', '.join(missing)}: export the model again")
    for name in TEXTS:
        if not isinstance(info[name], str):
            raise GridClipError(f"{path} has {name} {_shown(info[name])}, expected text: export the model again")
    for name, (least, most) in NUMBERS.items():
        if type(info[name]) is not int or not least <= info[name] <= most:
            raise GridClipError(
                f"{path} has {name} {_shown(info[name])}, expected a whole number from {least} to "
                f"{most}: export the model again"
            )
    return info


def _shown(value: object) -> str:
    return repr(value)[:40]
