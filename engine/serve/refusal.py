"""A reason in, an answer with its HTTP status and one sentence out: how the server says no."""

from __future__ import annotations

from ... import GridClipError

BAD_REQUEST, UNAUTHORISED, FORBIDDEN, NOT_FOUND = 400, 401, 403, 404
TOO_LARGE, UNUSABLE, BUSY = 413, 422, 503


class Refusal(GridClipError):
    """A request that gets no answer; `status` is HTTP's, the sentence says what was expected."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
