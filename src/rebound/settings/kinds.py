"""What a setting may hold, each beside what may be given for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rebound.settings.readers import Setting

Text = Setting[str, str | None]
Optional = Setting[str | None, str | None]
Number = Setting[int, int | str | None]
OptionalNumber = Setting[int | None, int | str | None]
Seconds = Setting[float, float | str | None]
Switch = Setting[bool, bool | str | None]
OptionalSwitch = Setting[bool | None, bool | str | None]
Texts = Setting[tuple[str, ...], Sequence[str] | str | None]
OptionalTexts = Setting[tuple[str, ...] | None, Sequence[str] | str | None]
Properties = Setting[
    Mapping[str, str | int | float | bool] | None,
    Mapping[str, str | int | float | bool] | str | None,
]
Statuses = Setting[tuple[int | str, ...], Sequence[int | str] | str | None]
