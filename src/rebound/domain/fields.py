"""Types of task fields, with their constraints."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    Json = str | int | float | bool | list[Any] | dict[str, Any] | msgspec.Raw | None
else:
    Json = msgspec.Raw

"""Any JSON value. msgspec keeps the text of what it reads; programs set Python values."""

Text = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A[^\x00-\x1f\x7f-\x9f]*\Z")]
Visible = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A[!-~]+\Z")]


def unbase64(text: str) -> bytes:
    """The bytes of base64 `text`. Raises ValueError."""
    decoded = b64decode(text, validate=True)
    if len(text) % 4 or text.endswith("==="):
        raise ValueError("more padding than there may be, which Python takes")
    return decoded
