"""Every call of the API, as it is described: what goes in, and each answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple

from msgspec import Meta

from rebound.domain.fields import Visible

DESCRIPTION: Final = """\
Bodies are JSON in UTF-8. `Content-Type` may be absent, `application/json`, `application/*+json`, \
or `application/x-www-form-urlencoded` with JSON in the body, which is what `curl -d` sends.

HEAD answers like GET, without a body. Another method than those listed gets 405 with `Allow`, \
another path, and one with a trailing slash, 404. Errors have the schema `Error` throughout. \
Requests that a browser sends on behalf of another site get 403.

Where the service has API keys, every call but those of health needs one; outside production this \
description is open too. There may be keys that only create tasks and look at single ones.

The server itself answers, and closes the connection: 400 `BAD_REQUEST` to what is not HTTP, 408 \
`REQUEST_TIMEOUT` to a request that does not arrive in time, 431 `HEADERS_TOO_LARGE` to more than \
100 headers or 64 KiB of them, and 503 `TOO_MANY_CONNECTIONS`.

Times are RFC 3339 in UTC with milliseconds. Ids are percent-encoded in paths. Calls without \
parameters ignore a query."""


class Parameter(NamedTuple):
    """One parameter; `type` as msgspec knows it, or the name of a `schema`."""

    name: str
    where: Literal["path", "query", "header"]
    description: str
    type: Any = None
    schema: str = ""


Answers = dict[int, tuple[str, str | None]]
"""By status: what it means, and the name of the body's schema, `html`, `object` or None."""


class Call(NamedTuple):
    """One operation."""

    name: str
    method: str
    path: str
    summary: str
    answers: Answers
    parameters: Sequence[Parameter] = ()
    body: str | None = None
    """Name of the schema of the request's body."""


_ALWAYS: Answers = {
    403: ("`FORBIDDEN`: the request comes from another site", "Error"),
    500: ("`INTERNAL`: a bug", "Error"),
}
_KEYED: Answers = _ALWAYS | {
    401: ("`UNAUTHORIZED`: the API key is missing or not known", "Error"),
    403: ("`FORBIDDEN`: the request comes from another site, or the key may not do this", "Error"),
    429: ("`RATE_LIMITED`: too many calls with this key", "Error"),
}
_STORED: Answers = _KEYED | {
    503: ("`STORE_UNAVAILABLE`: nothing is confirmed, repeat with the same id", "Error"),
}
_TOO_LARGE: Answers = {413: ("`PAYLOAD_TOO_LARGE`", "Error")}
_MEDIA_TYPE: Answers = {415: ("`UNSUPPORTED_MEDIA_TYPE`", "Error")}
_UNKNOWN: Answers = {404: ("`NOT_FOUND`: no task with this id is known", "Error")}
_INVALID: Answers = {
    400: ("`INVALID_BODY`: not JSON; `VALIDATION_ERROR`: JSON, but not valid", "Error")
}
_ID = Parameter("id", "path", "The task's id, percent-encoded", Visible)

CALLS: Final[Sequence[Call]] = (
    Call(
        "createTask", "post", "/tasks", "Hand over a task",
        _STORED | _TOO_LARGE | _MEDIA_TYPE | _INVALID | {
            201: ("The task is in the store", "Scheduled"),
            200: ("The same content is stored under this id already", "Scheduled"),
            409: ("`DUPLICATE_TASK`: this id is known with other content", "Error"),
        },
        (
            Parameter(
                "Idempotency-Key", "header",
                "Becomes the id where the body has none; bare, or quoted as in RFC 8941",
                Annotated[str, Meta(extra_json_schema={"format": "idempotency-key"})],
            ),
        ),
        "Task",
    ),
    Call(
        "findTasks", "get", "/tasks", "List tasks, newest first",
        _STORED | {
            200: ("A page", "Page"),
            400: ("`VALIDATION_ERROR`: an unknown, repeated or malformed parameter", "Error"),
        },
        (
            Parameter("state", "query", "Only tasks in this state", schema="State"),
            Parameter("leg", "query", "Only tasks on this leg", schema="Leg"),
            Parameter("source", "query", "Only tasks of this source", str),
            Parameter("client_id", "query", "Only tasks of this client", str),
            Parameter(
                "limit", "query", "Most tasks in the page, default 100",
                Annotated[int, Meta(ge=1, le=1000)],
            ),
            Parameter(
                "cursor", "query", "The `next_cursor` of the page before",
                Annotated[str, Meta(extra_json_schema={"format": "cursor"})],
            ),
        ),
    ),
    Call(
        "createTasks", "post", "/tasks/batch", "Hand over 1 to 1000 tasks",
        _STORED | _TOO_LARGE | _MEDIA_TYPE | _INVALID | {
            200: ("One result for each task, in order", "BatchResults"),
        },
        body="Batch",
    ),
    Call(
        "getTaskNamedBatch", "get", "/tasks/batch", "Look at the task with the id `batch`",
        _STORED | _UNKNOWN | {200: ("The task", "TaskView")},
    ),
    Call(
        "deleteTaskNamedBatch", "delete", "/tasks/batch", "Forget the task with the id `batch`",
        _STORED | _UNKNOWN | {
            204: ("It is forgotten", None),
            409: ("`WRONG_STATE`: it is not finished", "Error"),
        },
    ),
    Call(
        "getTask", "get", "/tasks/{id}", "Look at a task",
        _STORED | _UNKNOWN | {200: ("The task", "TaskView")}, (_ID,),
    ),
    Call(
        "deleteTask", "delete", "/tasks/{id}", "Forget a finished task",
        _STORED | _UNKNOWN | {
            204: ("It is forgotten", None),
            409: ("`WRONG_STATE`: it is not finished", "Error"),
        },
        (_ID,),
    ),
    Call(
        "replayTask", "post", "/tasks/{id}/replay", "Start a dead or cancelled task afresh",
        _STORED | _UNKNOWN | _TOO_LARGE | _MEDIA_TYPE | {
            200: ("The task, scheduled and due at once", "TaskView"),
            409: ("`WRONG_STATE`: it is neither dead nor cancelled", "Error"),
        },
        (_ID,),
    ),
    Call(
        "cancelTask", "post", "/tasks/{id}/cancel", "Give up a scheduled task",
        _STORED | _UNKNOWN | _TOO_LARGE | _MEDIA_TYPE | {
            200: ("The task, cancelled", "TaskView"),
            409: ("`TASK_BUSY`: it is being delivered; `WRONG_STATE`: it is finished", "Error"),
        },
        (_ID,),
    ),
    Call(
        "health", "get", "/health", "Does the store answer?",
        _ALWAYS | {200: ("It does", "Healthy"), 503: ("It does not", "Unhealthy")},
    ),
    Call(
        "livez", "get", "/livez", "Does the process answer?",
        _ALWAYS | {200: ("It does", "Alive")},
    ),
    Call(
        "readyz", "get", "/readyz", "Are requests welcome?",
        _ALWAYS | {
            200: ("They are", "Ready"),
            503: ("The store is away, or the service is shutting down", "NotReady"),
        },
    ),
    Call(
        "openapi", "get", "/openapi.json", "This description",
        _KEYED | {200: ("An OpenAPI 3.1 document", "object")},
    ),
    Call(
        "docs", "get", "/docs", "This description as a page",
        _KEYED | {200: ("A page without scripts", "html")},
    ),
)  # fmt: skip
