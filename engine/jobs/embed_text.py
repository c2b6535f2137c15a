"""An annotation file in, the embeddings of its captions in a store out."""

from __future__ import annotations

import logging
import pathlib

import numpy as np

from ...dali_pipes.contract import Failure
from ..annotations.annotations import Annotations, load_annotations
from ..encoding.encoder import Encoder
from ..store.store import Store
from .failures import CAPTION_STAGE, FailureLog, failures_path
from .progress import Interrupted, JobSummary, Tally

logger = logging.getLogger(__name__)

PASSES_PER_STEP = 16  # captions are sorted by length within a step, and the progress moves after each


def embed_text(
    encoder: Encoder,
    captions: Annotations | pathlib.Path,
    store_path: pathlib.Path,
    *,
    batch_size: int = 128,
    max_text_length: int | None = None,
    max_chars: int | None = None,
) -> JobSummary:
    """Embeds every caption of an annotation file into a store; a caption that is there already is replaced.

    Args:
        encoder: the model.
        captions: an annotation file, or what one holds.
        store_path: made if it is missing.
        batch_size: captions per pass.
        max_text_length: most tokens of a caption; default, and at most, the model's context length.
        max_chars: cut each caption to so many characters before tokenising it (77 is what the reference does).

    Raises:
        GridClipError: the file has no usable caption, the store was made by another model, or it cannot be written.
        Interrupted: Ctrl-C. Nothing was stored.
    """
    annotations = captions if isinstance(captions, Annotations) else load_annotations(captions)
    queries = annotations.queries
    store = Store.open(store_path, create=True)
    store.claim_model(encoder.info.to_json())
    with (
        FailureLog(failures_path(store.path), captions=True) as failures,
        Tally("embedded", "captions", len(queries), failures, with_super_images=False) as tally,
    ):
        for problem in annotations.problems:
            failures.add(Failure("", CAPTION_STAGE, problem))
        vectors = np.empty((len(queries), encoder.info.embed_dim), np.float32)
        step = batch_size * PASSES_PER_STEP
        try:
            for first in range(0, len(queries), step):
                some = slice(first, first + step)
                vectors[some] = encoder.encode_texts(
                    [query.text for query in queries[some]],
                    batch_size=batch_size,
                    max_chars=max_chars,
                    max_length=max_text_length,
                )
                tally.add_done(len(queries[some]))
        except KeyboardInterrupt as error:
            raise Interrupted(tally.summary()) from error
        store.put_queries(queries, vectors)
        return tally.summary()
