"""What is no JSON, and what is sent of a message and its key."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from rebound.domain import validation
from rebound.domain.destination import Base64
from rebound.domain.errors import InvalidBody, PayloadTooLarge, ValidationError
from tests.unit.door import VALID, checked, parse, parse_text, read, refused

# -- what is no JSON ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"{", b"nonsense", b"{'a': 1}", b'{"a": 1,}', b"\xef\xbb\xbf{}", b"{}{}",
        b'{"source": "s"} x', b'{"source": "a\nb"}', b'{"source": "\\q"}', b'{"source": tru}',
        b"\xff\xfe{\x00}\x00", b'{"a": "\\u12"}',
    ],
)  # fmt: skip
def test_what_is_no_json_is_an_invalid_body(body: bytes) -> None:
    with pytest.raises(InvalidBody):
        read(body)


@pytest.mark.parametrize("body", [b"[]", b"5", b'"x"', b"null", b"true", b"[{}]"])
def test_json_that_is_no_object_is_no_valid_task(body: bytes) -> None:
    with pytest.raises(ValidationError) as caught:
        read(body)
    assert caught.value.field is None


def test_broken_json_behind_a_wrong_value_is_an_invalid_body() -> None:
    with pytest.raises(InvalidBody):
        read(b'{"source": 5, "destination": {"url": ')


MEMBERS = ('"source": %s', '"message_data": %s', '"message_data": {"a": %s}', '"client_id": %s')


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("text", [r'"\ud800"', r'"\udc00"', r'"\ud800x"', r'"\ud800A"'])
def test_a_lone_surrogate_is_an_invalid_body(member: str, text: str) -> None:
    with pytest.raises(InvalidBody):
        parse_text(member % text)


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize(
    "text", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"]
)
def test_bytes_that_are_no_utf_8_are_an_invalid_body(member: str, text: bytes) -> None:
    head = json.dumps(VALID).encode()[:-1]
    with pytest.raises(InvalidBody, match="not UTF-8"):
        read(b"%s, %s}" % (head, member.encode() % (b'"%s"' % text)))


@pytest.mark.parametrize("depth", [5_000, 100_000])
@pytest.mark.parametrize("member", ['"message_data": %s', '"nonsense": %s', '"destination": %s'])
def test_deep_nesting_is_an_invalid_body_and_harms_nobody(member: str, depth: int) -> None:
    for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth):
        with pytest.raises(InvalidBody):
            parse_text(member % text)


# -- the message -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ('"hello"', b"hello"),
        ('"\\u00fc\\n"', "ü\n".encode()),
        ('"\\ud83d\\ude00"', "😀".encode()),
        ('""', b""),
        ('"5"', b"5"),
        ("5", b"5"),
        ("1e3", b"1e3"),
        ("123456789012345678901234567890", b"123456789012345678901234567890"),
        ("true", b"true"),
        ("null", b"null"),
        ('  { "b" : 1.0, "a":[ ] } ', b'{ "b" : 1.0, "a":[ ] }'),
        ('{"a":1,"a":2}', b'{"a":1,"a":2}'),
        ('["\\u00fc", "ü"]', '["\\u00fc", "ü"]'.encode()),
    ],
)
def test_a_string_is_sent_as_utf_8_and_any_other_value_as_the_text_received(
    text: str, sent: bytes
) -> None:
    assert validation.message(parse_text(f'"message_data": {text}')) == sent
    beside_null = parse_text(f'"client_id": null, "message_data": {text}')
    assert validation.message(beside_null) == sent


def test_base64_is_decoded_before_sending() -> None:
    raw = bytes(range(256))
    one = checked(message_data=base64.b64encode(raw).decode(), message_encoding="base64")
    assert validation.message(one) == raw
    assert validation.message(checked(message_encoding="base64")) == b""


@pytest.mark.parametrize(
    "data",
    ["YQ", "YQ=", "Y Q==", "YQ==\n", "é", "YQ-_", "==", "AAAA=", "AAAA====", {}, None, 5],
)
def test_what_is_no_base64_is_refused(data: Any) -> None:
    assert refused(message_data=data, message_encoding="base64").field == "message_data"


def test_the_limit_is_one_of_the_decoded_message() -> None:
    def size(limit: int, **fields: Any) -> None:
        validation.check(parse(**fields), max_payload=limit)

    size(4, message_data="four")
    size(4, message_data="üü")
    size(4, message_data=[12])
    size(4, message_data="AAAAAA==", message_encoding="base64")
    for fields in (
        {"message_data": "fives"},
        {"message_data": "üüü"},
        {"message_data": [123]},
        {"message_data": "AAAAAAA=", "message_encoding": "base64"},
    ):
        with pytest.raises(
            PayloadTooLarge, match=r"has [56] bytes, more than MAX_PAYLOAD"
        ) as caught:
            size(4, **fields)
        assert caught.value.field == "message_data"


# -- the key -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", [None, "", "k", "k" * 1024, "ü" * 512, {"base64": ""}, {"base64": "AAE="}]
)
def test_a_key_is_text_bytes_or_null(key: Any) -> None:
    expected = Base64(**key) if isinstance(key, dict) else key
    assert checked(message_key=key).message_key == expected


@pytest.mark.parametrize(
    "key", ["k" * 1025, "ü" * 513, {"base64": "AAAA" * 342}, {"base64": "!"}, {"base64": "YQ"}]
)
def test_a_key_has_at_most_1024_bytes(key: Any) -> None:
    assert refused(message_key=key).field == "message_key"
