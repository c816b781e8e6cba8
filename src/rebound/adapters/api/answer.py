"""An answer, and which answer an error gets."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from typing import Final, NamedTuple

from rebound.adapters.api.view import Code, Error, encode
from rebound.domain.errors import (
    Closed,
    DuplicateTask,
    InvalidBody,
    NotFound,
    PayloadTooLarge,
    ReboundError,
    StoreFull,
    StoreUnavailable,
    TaskBusy,
    ValidationError,
    WrongState,
)

Headers = list[tuple[bytes, bytes]]
JSON: Final = (b"content-type", b"application/json")


class MethodNotAllowed(ReboundError):
    """This path does not take this method."""

    def __init__(self, allow: str) -> None:
        super().__init__(f"this path takes only {allow}")
        self.allow = allow


class Forbidden(ReboundError):
    """The request comes from another site."""


class Unauthorized(ReboundError):
    """This call needs an API key, sent as Authorization: Bearer <key> or as X-API-Key."""


class RateLimited(ReboundError):
    """There were too many calls with this key."""

    def __init__(self, wait: float) -> None:
        super().__init__()
        self.wait = wait
        """Seconds until there may be another one."""


class UnsupportedMediaType(ReboundError):
    """The body is not JSON by its Content-Type."""


class Answer(NamedTuple):
    """One response. HEAD gets it without `body`."""

    status: int
    headers: Headers
    body: bytes = b""


ERRORS: Final[Mapping[type[BaseException], tuple[int, Code]]] = {
    NotFound: (404, "NOT_FOUND"),
    MethodNotAllowed: (405, "METHOD_NOT_ALLOWED"),
    Unauthorized: (401, "UNAUTHORIZED"),
    Forbidden: (403, "FORBIDDEN"),
    RateLimited: (429, "RATE_LIMITED"),
    PayloadTooLarge: (413, "PAYLOAD_TOO_LARGE"),
    UnsupportedMediaType: (415, "UNSUPPORTED_MEDIA_TYPE"),
    InvalidBody: (400, "INVALID_BODY"),
    ValidationError: (400, "VALIDATION_ERROR"),
    DuplicateTask: (409, "DUPLICATE_TASK"),
    TaskBusy: (409, "TASK_BUSY"),
    WrongState: (409, "WRONG_STATE"),
    StoreUnavailable: (503, "STORE_UNAVAILABLE"),
    Closed: (503, "STORE_UNAVAILABLE"),
}


def json(body: object, status: int = HTTPStatus.OK) -> Answer:
    """`body`, encoded once."""
    return raw(encode(body), status)


def raw(text: bytes, status: int = HTTPStatus.OK) -> Answer:
    """JSON text as it is."""
    return Answer(status, [JSON, (b"content-length", b"%d" % len(text))], text)


def explained(error: ReboundError) -> tuple[int, Error]:
    """Status and body for `error`."""
    status, code = next(ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS)
    return status, Error(_text(error), code)


def refusal(error: ReboundError) -> Answer:
    """The answer to `error`."""
    status, body = explained(error)
    answer = json(body, status)
    if isinstance(error, MethodNotAllowed):
        answer.headers.append((b"allow", error.allow.encode()))
    if isinstance(error, Unauthorized):
        answer.headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, RateLimited):
        answer.headers.append((b"retry-after", b"%d" % ceil(error.wait)))
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        answer.headers.append((b"retry-after", b"1"))
    return answer


def internal() -> Answer:
    """The answer to a bug: no details, they are in the log."""
    return json(Error("internal error; the service's log has the details", "INTERNAL"), 500)


def _text(error: ReboundError) -> str:
    """What the caller may know: where the store is, and why it is away, stays inside."""
    if isinstance(error, StoreUnavailable):
        return str(StoreFull() if isinstance(error, StoreFull) else StoreUnavailable())
    if isinstance(error, Closed):
        return "The service is starting or stopping; nothing was confirmed. Repeat it then."
    return str(error)
