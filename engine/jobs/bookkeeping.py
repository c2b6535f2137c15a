"""What a user asked of a job's books in, how they are kept out: read where failures are logged and counts are shown."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Bookkeeping:
    """How the books of a job are kept.

    Attributes:
        retries: the job does only what has failed before, so that other failures stay in the file.
        metrics_address: host and port at which to show Prometheus how the job gets on; None: nowhere.
        name: what the job is called where its progress is shown beside that of others.
    """

    retries: bool = False
    metrics_address: tuple[str, int] | None = None
    name: str = ""


ORDINARY = Bookkeeping()
