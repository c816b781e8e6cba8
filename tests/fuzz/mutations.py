"""Valid tasks, and what somebody's program, proxy or malice makes of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

VALID: list[dict[str, Any]] = [
    {"source": "s", "destination": {"url": "http://a.test"}},
    {"id": "a-1", "source": "é", "destination": {"url": "https://u:p@a.test:8443/x?y#z"}},
    {"source": "s", "destination": {"host": "h", "port": 9092, "topic": "t"}, "attempt": 3},
    {"source": "s", "destination": {"host": "h", "port": "1", "topic": "t", "url": ""},
     "dead_destination": {"url": "kafka:///dead", "headers": [["a", "b"], ["a", None]]}},
    {"source": "s", "destination": {"url": "http://[::1]:80/", "method": "PUT", "timeout": 2.5,
     "headers": {"A": "1", "X-Token": "t"}, "fatal_statuses": [404, "4xx"]},
     "max_retries": 7, "base_delay": 0.5, "delay": 0, "ttl": 60, "failures": 1},
    {"source": "s", "destination": {"url": "kafka://h:1,i:2/t", "partition": 1, "timestamp": 5},
     "message_key": {"base64": "AAE="}, "destination_type": "kafka"},
    {"source": "s", "destination": {"url": "call://name"}, "destination_type": "call",
     "is_priority": True, "client_id": "c", "lane": "one"},
    {"source": "s", "destination": {"url": "http://a.test"}, "message_data": {"a": [1, "ü", None]},
     "backoff": {"strategy": "exponential", "factor": 3, "max_delay": 60, "jitter": "full"}},
    {"source": "s", "destination": {"url": "http://a.test"}, "message_data": "AAE=",
     "message_encoding": "base64", "message_key": None,
     "backoff": {"strategy": "schedule", "schedule": [1, 2.5], "jitter": 0.5}},
    {"source": "s", "destination": {"url": "http://a.test", "method": None}, "message_data": "text",
     "message_key": "key", "destination_type": "http", "dead_destination": {"url": ""},
     "ttl": None},
]  # fmt: skip

VALUES = [
    "null", "true", "false", "-1", "0", "-0", "1", "0.5", "101", "1e2", "5.0", "5e0", "1e400",
    "-1e400", "NaN", "Infinity", "01", "+1", ".5", "1.", "0x10", "1" * 5000, "9007199254740993",
    "99999999999999999999", "1e-400", "undefined", "'x'", '"unterminated', "[1,]", "{,}", "//",
    '""', '" "', '"a b"', r'"\u0000"', '"\x00"', '"\n"', r'"\n"', r'"\ud800"', r'"\udc00\ud800"',
    r'"\ud83d\ude00"', r'"\x41"', r'"\u12"', '"é"', '"\u0085"', '"\u2028"', '"😀"', '"\ufeff"',
    '"a\\n"', '"5"', '"none"', '"schedule"', '"base64"', '"kafka"', '"HTTP"', '"4xx"', '"2xx"',
    '"AA=="', '"AA==AA=="', '"AA"', '"%"', '"http://b.test"', '"http://"', '"http://a.test:0"',
    '"http://a.test:65536"', '"http://[::1"', '"http://a..b"',
    '"http://127.1"', '"http://0x7f.0.0.1"', '"http://10.0.0.1"',
    '"kafka://a..b/t"', '"kafka://1,2:3/t"', '"kafka://[x]/t"', '{"Content_Length":"1"}',
    '"http://a.test/ "',
    r'"http://a.test/\r\nX: y"', '"http://a@b@c.test"', '"http://bücher.test"', '"HTTPS://A.TEST."',
    '"javascript:alert(1)"', '"file:///etc/passwd"', '"//a.test"', '"kafka://h:9092/t"',
    '"kafka://h:70000/t"', '"kafka:///.."', '"call://x"', '"call://"', '"1,b"',
    f'"{"x" * 255}"', f'"{"x" * 256}"', f'"{"x" * 3000}"', f'"{"é" * 600}"',
    f'"http://a.test/{"x" * 2034}"', f'"http://a.test/{"x" * 2035}"',
    "[]", "{}", "[null]", '{"a":null}', '{"":""}', '["a","b"]', '[["a",null]]', '[["a"]]',
    '[["rebound-x","b"]]', '[[1,2]]', '{"url":"http://b.test"}', '{"url":null}',
    '{"base64":"AA=="}', '{"base64":"%"}', '{"base64":null}', '{"base64":"AAAA="}',
    '{"Host":"x"}', '{"x-REBOUND-a":"b"}', r'{"A":"b\nc"}',
    '{"A":"b\\tc"}', '{"A b":"c"}', '{"a":1,"a":2}', "[300,599]", "[299]", "[1,2,3]", "[-1]",
    "[" * 100 + "]" * 100, "[" * 100_000 + "]" * 100_000, "[" * 100_000, '{"a":' * 20_000,
    json.dumps({f"h{n}": "v" for n in range(65)}), json.dumps([["h", "v"]] * 65),
]  # fmt: skip
HUGE = [f'"{"x" * 1_048_576}"', f'"{"x" * 1_048_577}"', f'"{"x" * 2_300_000}"']
NAMES = [
    "", " ", "x", "state", "lease", "attempts", "Source", "sources", "__proto__", "a.b", "a[0]",
    "destination.url", "é", "\x00", "x" * 1000, "url", "host", "headers", "method", "strategy",
    "schedule", "jitter", "base64", "id", "delay", "ttl", "message_data", "message_encoding",
]  # fmt: skip
BODIES = [
    b"", b" ", b"null", b"true", b"0", b'""', b"[]", b"{}", b"[{}]", b"\x00", b"\xef\xbb\xbf{}",
    b"source=s&destination=x", b"<task/>", b"--- a: b", b"{" * 100_000, b"[" * 100_000, b"\xff" * 9,
    b'{"source"', b'{"source":}', b'{"a":1}{"b":2}', b"{}\n{}", b"\x1f\x8b\x08\x00", b"NaN",
]  # fmt: skip
ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "cp1252", "cp037"]

Mutation = Callable[[random.Random, dict[str, Any]], bytes]


def bodies(chance: random.Random, count: int) -> Iterator[bytes]:
    """`count` bodies; one in fifty is a task as it should be."""
    ways: list[Mutation] = [_value, _value, _value, _name, _name, _left_out, _twice, _bytes, _bytes]
    for number in range(count):
        task = json.loads(json.dumps(chance.choice(VALID)))
        if number % 50 == 0:
            yield _text(task)
        elif number % 97 == 0:
            yield chance.choice(BODIES)
        elif number % 101 == 0:
            yield _encoded(chance, task)
        elif number % 499 == 0:
            yield _with(task, "message_data", chance.choice(HUGE))
        else:
            yield chance.choice(ways)(chance, task)


def _value(chance: random.Random, task: dict[str, Any]) -> bytes:
    """One to three values are others."""
    marks = {}
    for n in range(chance.choice([1, 1, 1, 2, 3])):
        part, name = _place(chance, task)
        part[name] = f"@{n}@"
        marks[f'"@{n}@"'] = chance.choice(VALUES)
    text = json.dumps(task, ensure_ascii=False)
    for mark, value in marks.items():
        text = text.replace(mark, value)
    return text.encode()


def _name(chance: random.Random, task: dict[str, Any]) -> bytes:
    """A member is called otherwise, or there is one more."""
    part, name = _place(chance, task)
    new = chance.choice(NAMES)
    if isinstance(part, list):
        part.append(chance.choice(VALID))
    elif chance.random() < 0.5:
        part[new] = part.pop(name)
    else:
        part[new] = chance.choice([None, 1, "x", {}, "http://a.test"])
    return _text(task)


def _left_out(chance: random.Random, task: dict[str, Any]) -> bytes:
    part, name = _place(chance, task)
    del part[name]
    return _text(task)


def _twice(chance: random.Random, task: dict[str, Any]) -> bytes:
    """A name stands twice."""
    name = chance.choice([*task])
    first = f"{json.dumps(name)}:{chance.choice(VALUES)},"
    return b"{" + first.encode() + _text(task)[1:]


def _bytes(chance: random.Random, task: dict[str, Any]) -> bytes:
    """Bytes are lost, changed, inserted or repeated."""
    body = bytearray(_text(task))
    for _ in range(chance.choice([1, 1, 2, 5])):
        at = chance.randrange(len(body))
        match chance.randrange(5):
            case 0:
                body[at] = chance.randrange(256)
            case 1:
                body[at:at] = bytes([chance.randrange(256)])
            case 2:
                del body[at : at + chance.randrange(1, 9)]
            case 3:
                body[at:at] = body[at : at + 9]
            case _:
                body[at] ^= 1 << chance.randrange(8)
        body = body or bytearray(b"{")
    return bytes(body)


def _encoded(chance: random.Random, task: dict[str, Any]) -> bytes:
    return json.dumps(task).encode(chance.choice(ENCODINGS))


def _with(task: dict[str, Any], name: str, value: str) -> bytes:
    task[name] = "@@"
    return _text(task).replace(b'"@@"', value.encode())


def _place(chance: random.Random, task: dict[str, Any]) -> tuple[Any, Any]:
    """A member or an entry anywhere in `task`: what holds it, and its name or index."""
    places: list[tuple[Any, Any]] = []

    def walk(part: Any) -> None:
        names = part if isinstance(part, dict) else range(len(part))
        for name in names:
            places.append((part, name))
            if isinstance(part[name], dict | list) and part[name]:
                walk(part[name])

    walk(task)
    return chance.choice(places)


def _text(task: dict[str, Any]) -> bytes:
    return json.dumps(task, ensure_ascii=False).encode()
