"""A model folder in, its settings (model.json) and the paths of its graphs out."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from .. import GridClipError

FORMAT = 1
REQUIRED = (
    "name", "precision", "image_size", "embed_dim", "context_length", "start_token", "end_token", "fingerprint"
)


def read_info(model_dir: pathlib.Path) -> dict[str, Any]:
    """The content of model.json.

    Raises:
        GridClipError: `model_dir` is no model folder, or one of another format.
    """
    path = model_dir / "model.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        message = f"{model_dir} is not a model folder (it has no model.json): make one with gridclip export"
        raise GridClipError(message) from error
    except (OSError, ValueError) as error:
        raise GridClipError(f"{path} cannot be read: {error}; export the model again") from error
    found = info.get("format") if isinstance(info, dict) else None
    if found != FORMAT:
        raise GridClipError(f"{path} has format {found}, expected {FORMAT}: export the model again")
    missing = [name for name in REQUIRED if name not in info]
    if missing:
        raise GridClipError(f"{path} lacks {', '.join(missing)}: export the model again")
    return info
