"""Destinations: lanes, the original's host, port and topic, what is refused, what is hidden."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rebound.domain.destination import (
    Base64,
    Destination,
    DestinationType,
    Place,
    place,
    redact_url,
)
from rebound.domain.errors import ValidationError
from tests.support import task


def read(**fields: Any) -> Destination:
    """As it comes in as JSON."""
    return msgspec.json.decode(msgspec.json.encode(fields), type=Destination)


def refused(destination: Destination) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        destination.check("destination")
    assert caught.value.field is not None
    assert str(caught.value).startswith(caught.value.field + ": ")
    return caught.value


# -- lanes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "lane"),
    [
        ("https://api.x.com", "https://api.x.com"),
        ("https://api.x.com/a/b?c#d", "https://api.x.com"),
        ("HTTPS://API.X.Com/A", "https://api.x.com"),
        ("https://api.x.com:443/", "https://api.x.com"),
        ("http://api.x.com:80/", "http://api.x.com"),
        ("http://api.x.com:443/", "http://api.x.com:443"),
        ("https://api.x.com:80/", "https://api.x.com:80"),
        ("http://api.x.com:8080/", "http://api.x.com:8080"),
        ("http://api.x.com:65535/", "http://api.x.com:65535"),
        ("http://api.x.com:/", "http://api.x.com"),
        ("http://user:pa:ss@api.x.com:8080/", "http://api.x.com:8080"),
        ("http://user@api.x.com", "http://api.x.com"),
        ("http://api.x.com?mail=a@b.c", "http://api.x.com"),
        ("http://[::1]:8080/x", "http://[::1]:8080"),
        ("http://u:p@[2001:DB8::1]/", "http://[2001:db8::1]"),
        ("https://[::1]:443", "https://[::1]"),
        ("http://[fe80::1%25eth0]/", "http://[fe80::1%25eth0]"),
        ("http://127.0.0.1:9/", "http://127.0.0.1:9"),
        ("http://localhost", "http://localhost"),
        ("http://under_score.test", "http://under_score.test"),
        ("http://bücher.example/", "http://xn--bcher-kva.example"),
        ("kafka://h:9092/topic", "kafka://h:9092/topic"),
        ("kafka://B:2,a:1,C:3/Topic", "kafka://a:1,b:2,c:3/Topic"),
        ("kafka://C:3,a:1,b:2/Topic", "kafka://a:1,b:2,c:3/Topic"),
        ("KAFKA://h/t", "kafka://h/t"),
        ("kafka:///t", "kafka:///t"),
        ("kafka://[::1]:9092/t", "kafka://[::1]:9092/t"),
        ("call://handler", "call:handler"),
        ("call://Handler.v2", "call:Handler.v2"),
    ],
)
def test_the_lane_is_one_origin_one_topic_or_one_handler(url: str, lane: str) -> None:
    assert place(url).lane == lane
    Destination(url=url).check("destination")


def test_a_worker_serves_a_kind_or_one_handler() -> None:
    assert [place(u).served_by for u in ("https://a.test", "kafka://h/t", "call://x")] == [
        "http",
        "kafka",
        "call:x",
    ]
    assert place("https://a.test").kind == DestinationType.HTTP == "http"
    assert task(destination=Destination(url="call://x")).queue == "call:x|call:x"


def test_the_origin_is_scheme_host_port_and_path_only() -> None:
    shown = "http://a.test:8080/path/x"
    assert place("http://user:secret@A.test:8080/path/x?token=1#y").origin == shown
    assert place("kafka://h:9092/t").origin == "kafka://h:9092/t"
    assert place("call://x").origin == "call://x"


def test_a_lane_of_the_callers_own_holds_for_the_main_leg_only() -> None:
    dead = Destination(url="http://dead.test")
    one = replace(task(dead_destination=dead), lane="mine")
    assert one.accepted().queue == "http|mine"
    assert replace(one, failures=5).accepted().queue == "http|http://dead.test"


def test_a_lane_has_at_most_255_characters() -> None:
    host = ".".join(["a" * 49] * 5)
    assert len(place(f"https://{host}:65535/").lane) == 255


# -- the original's form -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "h", "port": "9092", "topic": "t"}, "kafka://h:9092/t"),
        ({"host": "h", "port": 9092, "topic": "t"}, "kafka://h:9092/t"),
        ({"host": "h", "port": 1, "topic": "t"}, "kafka://h:1/t"),
        ({"host": "h", "port": "", "topic": "t"}, "kafka://h:9092/t"),
        ({"host": "h", "topic": "t"}, "kafka://h:9092/t"),
        ({"host": "[::1]", "port": 9, "topic": "t"}, "kafka://[::1]:9/t"),
        ({"url": "http://a.test", "host": "", "port": "", "topic": ""}, "http://a.test"),
        ({"url": "", "host": "h", "port": "1", "topic": "t"}, "kafka://h:1/t"),
    ],
)
def test_host_port_and_topic_are_folded_and_empty_strings_are_absent(
    fields: dict[str, Any], url: str
) -> None:
    destination = read(**fields)
    destination.check("destination")
    assert destination.address == url
    assert destination.identity() == Destination(url=url).identity()
    assert destination.given


def test_all_empty_counts_as_absent() -> None:
    assert not read().given
    assert not read(url="", host="", port="", topic="").given
    assert not Destination(headers=None, method=None).given


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"host": "h"},
        {"host": "h", "port": 9092},
        {"topic": "t"},
        {"port": 9092},
        {"host": "h", "port": 0, "topic": "t"},
        {"host": "h", "port": "0", "topic": "t"},
        {"host": "h", "port": "1,other:2", "topic": "t"},
        {"host": "h", "port": -1, "topic": "t"},
        {"host": "h", "port": 65536, "topic": "t"},
        {"host": "h", "port": "http", "topic": "t"},
        {"host": "h", "port": " 9092", "topic": "t"},
        {"host": "::1", "port": 9092, "topic": "t"},
        {"host": "h/x", "port": 9092, "topic": "t"},
        {"host": "u:secret@h", "port": 9092, "topic": "t"},
        {"host": "h", "topic": "t/x"},
        {"host": "h", "topic": "t t"},
        {"host": "h", "topic": "."},
        {"host": "h", "topic": "t" * 250},
        {"url": "http://a.test", "host": "h", "topic": "t"},
        {"url": "http://a.test", "topic": "t"},
        {"url": "http://a.test", "port": 0},
    ],
)
def test_half_or_doubly_given_places_are_refused(fields: dict[str, Any]) -> None:
    assert "secret" not in str(refused(read(**fields)))


# -- malformed URLs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "a.test", "//a.test", "http:a.test", "http://", "http:///x", "http://:80/", "http://@/",
        "http://a.test:0", "http://a.test:65536", "http://a.test:99999999999", "http://a.test:-1",
        "http://a.test:+80", "http://a.test:8_0", "http://a.test:٨٠", "http://a.test:http",
        "http://a.test:80:80", "http://::1/", "http://[::1", "http://[::1]x/", "http://[::1]8/",
        "http://x[::1]/", "http://[1.2.3.4]/", "http://[::G]/", "http://[v1.x]/", "http://[]/",
        "http://a b.test", "http://a.test/a b", " http://a.test", "http://a.test ",
        "http://a.test/\r\nX-Evil: 1", "http://a.test/\n", "http://a.test/\t", "http://a.test/\0",
        "http://a.test/\x7f", "http://a.test/\x85", "http://a.test/\xa0", "http://a.test/<x>",
        "http://a.test/{x}", "http://a.test\\@b.test", "http://a..test", "http://.a.test",
        "http://a.test..", "http://%61.test", "http://a%00.test", "http://℀.test",
        f"http://{'a' * 64}.test", f"http://{'a.' * 127}test", "http://\ud800.test",
        "ftp://a.test", "file:///etc/passwd", "amqp://h/q", "sqs://q", "pubsub://t", "smtp://h",
        "javascript:alert(1)", "ht tp://a.test", "://a.test", "1http://a.test",
        "kafka://h", "kafka://h/", "kafka://h:0/t", "kafka://h:65536/t", "kafka://h:/t",
        "kafka://h:999999/t", "kafka://,/t", "kafka://a,/t", "kafka://a,,b/t", "kafka://::1:9/t",
        "kafka://h/t/x", "kafka://h/t?x", "kafka://h/..", "kafka://é/t", "kafka://u@h/t",
        "call://", "call://a/b", "call://a/", "call://é", f"call://{'x' * 256}",
    ],
)  # fmt: skip
def test_a_malformed_url_is_refused_naming_the_field(url: str) -> None:
    assert refused(Destination(url=url)).field == "destination.url"


def test_an_unknown_scheme_is_named_with_the_known_ones() -> None:
    error = str(refused(Destination(url="ftp://a.test")))
    assert error == "destination.url: unknown scheme 'ftp'; known are http, https, kafka and call"


def test_a_url_has_at_most_2048_characters() -> None:
    path = "x" * (2048 - len("http://a.test/"))
    Destination(url=f"http://a.test/{path}").check("destination")
    assert "2048" in str(refused(Destination(url=f"http://a.test/{path}x")))


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hush/@a.test", "http://user:hush", "http://u:hush@℀.test/", "hush@h://a.test",
        "kafka://u:hush@h:9/t", "http://u:hush@a.test:99999", "hush@a.test", "http://u:hush@/x",
    ],
)  # fmt: skip
def test_an_error_never_shows_what_may_be_a_password(url: str) -> None:
    assert "hush" not in str(refused(Destination(url=url)))


@given(st.text() | st.from_regex(r"\A(https?|kafka|call)://.*", fullmatch=True))
def test_any_text_is_a_place_or_a_validation_error(url: str) -> None:
    try:
        found = place(url)
    except ValidationError:
        return
    assert isinstance(found, Place)
    assert 0 < len(found.lane) <= 255
    assert found.lane.isascii()
    assert found.lane.isprintable()
    assert "@" not in found.lane or found.kind == "call"


# -- options that belong to one kind -----------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"url": "kafka://h/t", "method": "PUT"}, "method"),
        ({"url": "kafka://h/t", "timeout": 5}, "timeout"),
        ({"url": "call://x", "fatal_statuses": [404]}, "fatal_statuses"),
        ({"url": "http://a.test", "partition": 0}, "partition"),
        ({"url": "http://a.test", "timestamp": 0}, "timestamp"),
        ({"url": "call://x", "partition": 1}, "partition"),
    ],
)
def test_an_option_of_another_kind_is_refused(fields: dict[str, Any], field: str) -> None:
    assert refused(read(**fields)).field == f"destination.{field}"


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "post"}, {"method": "HEAD"}, {"method": "CONNECT"}, {"method": ""},
        {"timeout": 0}, {"timeout": 300.1}, {"timeout": "5"}, {"timeout": True},
        {"fatal_statuses": [200]}, {"fatal_statuses": [600]}, {"fatal_statuses": ["2xx"]},
        {"fatal_statuses": ["404"]}, {"fatal_statuses": [404.0]}, {"fatal_statuses": 404},
        {"headers": {"A": 1}}, {"headers": {"A": None}}, {"headers": "A: 1"},
        {"partition": -1}, {"partition": 1.0}, {"timestamp": -1}, {"timestamp": 2**53},
        {"port": 80.0}, {"port": True}, {"port": None}, {"url": 5},
    ],
)  # fmt: skip
def test_values_out_of_range_or_of_another_type_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(**{"url": "http://a.test", **fields})


def test_all_that_the_table_allows_is_accepted() -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "GET"):
        read(url="http://a.test", method=method, timeout=0.001).check("destination")
    fatal = [300, 404, 599, "3xx", "4xx", "5xx"]
    read(url="http://a.test", fatal_statuses=fatal, timeout=300).check("destination")
    listed = [["a", "x"], ["a", {"base64": "AAE="}], ["b", None]]
    read(url="kafka://h/t", headers=listed, partition=3, timestamp=1).check("destination")
    read(url="kafka://h/t", headers={"host": "x"}).check("destination")


# -- headers -----------------------------------------------------------------------------------


def with_headers(headers: Any, url: str = "http://a.test") -> Destination:
    return Destination(url=url, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "1"}, {"Content-Type": "text/plain"}, {"User-Agent": "me"}, {"x": ""},
        {"x": "a\tb"}, {"x": "ünï"}, {"Authorization": "Bearer x"}, {"!#$%&'*+-.^_`|~": "x"},
        {f"X-{n}": "v" for n in range(64)}, {"A": "x" * 8191},
    ],
)  # fmt: skip
def test_headers_within_their_limits_are_accepted(headers: dict[str, str]) -> None:
    with_headers(headers).check("destination")


@pytest.mark.parametrize(
    "headers",
    [
        {"": "x"}, {"a b": "x"}, {"a:": "x"}, {"ä": "x"}, {"a\r\nb": "x"}, {"a\n": "x"},
        {"x": "a\r\nEvil: 1"}, {"x": "a\nb"}, {"x": "a\rb"}, {"x": "a\0"}, {"x": "\x7f"},
        {f"X-{n}": "v" for n in range(65)}, {"A": "x" * 8192}, {"A": "ä" * 4096},
        [["X-A", "1"]],
    ],
)  # fmt: skip
def test_headers_beyond_them_or_that_could_forge_others_are_refused(headers: Any) -> None:
    assert refused(with_headers(headers)).field == "destination.headers"


@pytest.mark.parametrize(
    "name",
    [
        "Host", "content-length", "Transfer-Encoding", "Connection", "X-Message-Key",
        "x-rebound-task-id", "X-Rebound-Anything", "Upgrade", "TE", "Expect",
    ],
)  # fmt: skip
def test_a_header_that_rebound_sets_is_refused(name: str) -> None:
    assert "is set by Rebound" in str(refused(with_headers({name: "x"})))


def test_kafka_headers_may_have_any_text_but_rebounds_names_and_broken_base64() -> None:
    with_headers([["a b\n", "x\n"], ["host", ""]], "kafka://h/t").check("destination")
    for bad in ({"rebound-attempt": "1"}, [("Rebound-X", None)], [("a", Base64("!"))]):
        assert refused(with_headers(bad, "kafka://h/t")).field == "destination.headers"


def test_consumers_set_the_headers_that_count_failures() -> None:
    for name in ("rebound-failures", "rebound-group", "rebound-expires", "Rebound-Error"):
        with_headers([(name, "1")], "kafka://h/t").check("destination")
    for name in ("rebound-failures\n", "rebound-failures2", "rebound-task-id"):
        assert refused(with_headers([(name, "1")], "kafka://h/t")).field == "destination.headers"


def test_the_dead_destination_is_named_where_it_is_wrong() -> None:
    with pytest.raises(ValidationError) as caught:
        with_headers({"a b": "x"}).check("dead_destination")
    assert caught.value.field == "dead_destination.headers"


# -- what may be shown -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:pass@a.test/x", "http://***@a.test/x"),
        ("http://user@a.test", "http://***@a.test"),
        ("http://u:p@b@a.test:80/x?y=z", "http://***@a.test:80/x?y=z"),
        ("http://a.test/x", "http://a.test/x"),
        ("http://a.test/@x", "http://a.test/@x"),
        ("http://a.test?mail=a@b.c", "http://a.test?mail=a@b.c"),
        ("http://a.test?to=http://u@b/", "http://a.test?to=http://u@b/"),
        ("http://a.test#a@b", "http://a.test#a@b"),
        ("kafka://h/t", "kafka://h/t"),
        ("", ""),
    ],
)
def test_userinfo_is_hidden_and_nothing_else(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert Destination(url=url).redacted().url == shown


SECRET_NAMES = (
    "Authorization", "authorization", "Proxy-Authorization", "Cookie", "X-Auth-Token", "apikey",
    "X-API-Key", "Client-Secret", "X-Hub-Signature-256", "webhook-signature", "TOKENS",
)  # fmt: skip
OPEN_NAMES = ("Content-Type", "X-Author", "Set-Cookie2", "Cookies", "X-Trace", "Authorizations")


def test_values_of_secret_headers_are_hidden_in_either_form() -> None:
    names = (*SECRET_NAMES, *OPEN_NAMES)
    as_object = with_headers(dict.fromkeys(names, "hush")).redacted().headers
    as_list = with_headers([(n, "hush") for n in names]).redacted().headers
    assert isinstance(as_object, dict)
    assert [n for n, v in as_object.items() if v == "***"] == list(SECRET_NAMES)
    assert as_list == list(as_object.items())


def test_repr_of_a_destination_and_of_its_task_shows_no_secret() -> None:
    hiding = Destination(
        url="http://user:hush@a.test/x",
        headers={"Authorization": "hush", "X-Open": "open"},
        timeout=5,
    )
    for shown in (repr(hiding), repr(task(destination=hiding, message_data="hush"))):
        assert "hush" not in shown
        assert "http://***@a.test/x" in shown
        assert "'X-Open': 'open'" in shown
    assert "timeout=5" in repr(hiding)


def test_redaction_leaves_everything_else_as_it_was() -> None:
    plain = read(url="http://a.test", method="PUT", timeout=3, fatal_statuses=["4xx"])
    kafka = read(host="h", port="9092", topic="t", partition=1, timestamp=2)
    assert plain.redacted() == plain
    assert kafka.redacted() == kafka
