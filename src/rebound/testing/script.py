"""What a destination answers, said beforehand: `500, 500, 429 with Retry-After 30, 200`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from rebound.domain.errors import ValidationError

ALLOWED = "an HTTP status from 200 to 599"


class Answer(Struct, frozen=True):
    """One answer of a destination."""

    status: int = 200
    retry_after: float | None = None
    """Seconds; sent as the header `Retry-After`."""
    body: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What goes with it."""
        wait = self.retry_after
        if wait is None:
            return {}
        return {"Retry-After": f"{wait:.0f}" if wait % 1 == 0 else str(wait)}


Line = Answer | Exception


class Script:
    """Answers in turn, for each key from the beginning; the last one repeats."""

    def __init__(self, *lines: int | Answer | Exception) -> None:
        """A status, an Answer, or an error of the connection. Raises ValidationError."""
        if not lines:
            raise ValidationError("script: is empty; give at least one status", field="script")
        self._lines = [_checked(line) for line in lines]
        self._heard: Counter[str] = Counter()

    def next(self, key: str) -> Line:
        """What the next request of this key gets."""
        at = min(self._heard[key], len(self._lines) - 1)
        self._heard[key] += 1
        return self._lines[at]


def parse(text: str) -> Sequence[Answer]:
    """`500,429:30,200` as answers; `:30` is Retry-After in seconds. Raises ValidationError."""
    answers = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([2-5]\d\d)(?::(\d{1,9}))?\s*", part, re.ASCII)
        if found is None:
            raise ValidationError(
                f"script: {part.strip()!r} is no answer; write {ALLOWED}, or 429:30 for one with"
                " Retry-After: 30, with commas between them",
                field="script",
            )
        wait = None if found[2] is None else int(found[2])
        answers.append(Answer(int(found[1]), retry_after=wait))
    return answers


def _checked(line: int | Answer | Exception) -> Line:
    if isinstance(line, Exception):
        return line
    answer = line if isinstance(line, Answer) else Answer(line)
    if type(answer.status) is not int or not 200 <= answer.status <= 599:
        raise ValidationError(f"script: {answer.status!r} is not {ALLOWED}", field="script")
    return answer
