"""A store or a file of query vectors in, a bank of queries for QB-Norm out."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from ... import GridClipError
from ..store.store import Store
from .normalisation import QueryBank


def load_query_bank(path: str | os.PathLike[str]) -> QueryBank:
    """The queries of a store, or the array `embedding` [B, D] of an npz, such as export-features writes.

    Raises:
        GridClipError: there are no queries, or they are not usable.
    """
    place = pathlib.Path(path)
    if place.is_dir():
        return QueryBank(Store.open(place).read_queries().vectors, str(path))
    try:
        with np.load(place) as archive:
            vectors = np.asarray(archive["embedding"], np.float32)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GridClipError(
            f"the query bank {path} cannot be read ({error}): expected a store with queries, or an npz with an array "
            "`embedding` [B, D]"
        ) from error
    if vectors.ndim != 2 or not vectors.size or not np.isfinite(vectors).all():
        raise GridClipError(
            f"the query bank {path} has embeddings {list(vectors.shape)}: expected finite [B, D], B >= 1"
        )
    return QueryBank(vectors, str(path))
