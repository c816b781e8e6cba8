"""Types of task fields, with their constraints."""

from __future__ import annotations

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
