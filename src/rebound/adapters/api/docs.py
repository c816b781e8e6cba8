"""The description as one HTML page: no script, nothing loaded from anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from html import escape
from typing import Any, Final

from rebound.adapters.api import openapi
from rebound.adapters.api.view import encode

HEADERS: Final = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    (b"x-content-type-options", b"nosniff"),
)
_REF: Final = "#/components/schemas/"
_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code, .call { font-family: ui-monospace, monospace; font-size: .92em }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
h3 { margin: 2rem 0 .3rem }
.call b { display: inline-block; min-width: 4.5rem; text-transform: uppercase }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem; border: 1px solid var(--line) }
th { background: var(--soft) }
td:first-child { white-space: nowrap }
"""  # noqa: E501


@cache
def page() -> bytes:
    """The page, in UTF-8."""
    return render(openapi.document()).encode()


def render(document: dict[str, Any]) -> str:
    """`document` as HTML."""
    info = document["info"]
    title = f"{info['title']} {info['version']}"
    calls = [
        _call(method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    schemas = [_schema(name, s) for name, s in document["components"]["schemas"].items()]
    intro = "".join(f"<p>{_words(p)}</p>" for p in info["description"].split("\n\n"))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{_STYLE}</style></head><body>
<h1>{escape(title)}</h1><p>{_words(info["summary"])}.
The same for programs: <a href="/openapi.json">openapi.json</a>.</p>{intro}
<h2>Calls</h2>{"".join(calls)}
<h2>Bodies</h2>{"".join(schemas)}
</body></html>
"""


def _call(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [
        f'<h3 class="call" id="{escape(operation["operationId"])}"><b>{escape(method)}</b>'
        f"{escape(path)}</h3><p>{_words(operation['summary'])}.</p>"
    ]
    if "parameters" in operation:
        rows = (
            (f"<code>{escape(p['name'])}</code>", escape(p["in"]), _type(p["schema"]),
             _words(p["description"]))
            for p in operation["parameters"]
        )  # fmt: skip
        parts.append(_table(("parameter", "in", "type", ""), rows))
    if "requestBody" in operation:
        parts.append(f"<p>Body: {_content(operation['requestBody'])}</p>")
    answers = (
        (f"<code>{escape(status)}</code>", _words(answer["description"]), _content(answer))
        for status, answer in operation["responses"].items()
    )
    parts.append(_table(("status", "meaning", "body"), answers))
    return "".join(parts)


def _schema(name: str, schema: dict[str, Any]) -> str:
    head = f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{_words(schema.get("description", ""))}'
    if "properties" not in schema:
        return f"{head} {_type(schema)}</p>"
    required = schema.get("required", ())
    rows = (
        (
            f"<code>{escape(field)}</code>",
            _type(member),
            "required" if field in required else _default(member),
            _words(member.get("description", "")),
        )
        for field, member in schema["properties"].items()
    )
    return f"{head}</p>{_table(('field', 'type', 'default', ''), rows)}"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f"<th>{h}</th>" for h in heads)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _content(part: dict[str, Any]) -> str:
    return ", ".join(
        f"{_type(content['schema'])} <code>{escape(kind)}</code>"
        for kind, content in part.get("content", {}).items()
    )


def _default(member: dict[str, Any]) -> str:
    if "default" not in member:
        return ""
    return f"<code>{escape(_json(member['default']))}</code>"


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words, with links to those that have a name."""
    if "$ref" in schema:
        name = escape(schema["$ref"].removeprefix(_REF))
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"<code>{escape(_json(v))}</code>" for v in schema["enum"])
    kind = escape(schema.get("format", schema.get("type", "any JSON value")))
    if kind == "array" and isinstance(schema.get("items"), dict):
        return f"list of {_type(schema['items'])}{_bounds(schema, 'Items', ' entries')}"
    if schema.get("pattern"):
        kind += f" <code>{escape(schema['pattern'])}</code>"
    return kind + _bounds(schema, "imum", "") + _bounds(schema, "Length", " characters")


def _bounds(schema: dict[str, Any], name: str, unit: str) -> str:
    low, high = schema.get(f"min{name}"), schema.get(f"max{name}")
    if high is None:
        return ""
    return f", {'' if low is None else low}{'–' if low is not None else 'at most '}{high}{unit}"


def _json(value: object) -> str:
    return encode(value).decode()


def _words(text: str) -> str:
    """Text with its `code`."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
