"""The settings as a page of the documentation.

`python -m rebound.settings.table > docs/settings.md` writes it.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from rebound.settings.config import SETTINGS
from rebound.settings.readers import Setting, spoken

INTRODUCTION: Final = """\
# Settings

<!-- Written by `make docs` out of src/rebound/settings: change it there. -->

Each is an environment variable, read as `REBOUND_<NAME>` first and then as `<NAME>`; a flag of
`rebound serve` and `rebound work`, which wins; and, in lower case, an argument of `Config`, which
`Config.from_env()` reads from the variables with the prefix only. Empty means not given. A wrong
value stops the start with one line that says which, and what is allowed.

Durations are written `250ms`, `1s`, `5m`, `1h30m`, `30d`, or as seconds. What else `Config` takes,
such as a program's own client of Redis, is in [embedding.md](embedding.md); what is unwise about
settings that are allowed, `rebound doctor` says.

| variable | flag | default | may be | meaning |
|---|---|---|---|---|
"""


def default_in_words(setting: Setting[Any, Any]) -> str:
    """The default as people write it; empty where there is none."""
    default = setting.default
    if default is None or default == ():
        return setting.shown_default
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, float):
        return spoken(default)
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def page() -> str:
    """The page, with a row for each setting."""
    return INTRODUCTION + "".join(map(_row, SETTINGS.values()))


def _row(setting: Setting[Any, Any]) -> str:
    default = default_in_words(setting)
    allowed = setting.allowed.replace("must be ", "").partition(", written like")[0]
    cells = (
        f"`{setting.variable}`", f"`{setting.flag}`", default and f"`{default}`",
        allowed.replace("*", "\\*"), setting.description.replace("*", "\\*"),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
