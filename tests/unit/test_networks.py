"""Where deliveries may go: hostile URLs, resolved addresses, and the settings about them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebound import Config, Destination
from rebound.domain.errors import ValidationError
from rebound.domain.networks import (
    IS_DENIED,
    IS_METADATA,
    IS_PRIVATE,
    IS_RESERVED,
    METADATA,
    Guard,
)
from rebound.settings import networks
from tests.unit.test_settings import refusal as refused

DEV, PROD = Guard(), Guard(private=False)
MALFORMED = "malformed"

HOSTILE = {
    # spellings of an IPv4 address that resolvers know and readers do not
    "http://2130706433/": MALFORMED, "http://017700000001/": MALFORMED,
    "http://0x7f000001/": MALFORMED, "http://0X7F000001/": MALFORMED, "http://127.1/": MALFORMED,
    "http://127.0.1/": MALFORMED, "http://0177.0.0.1/": MALFORMED, "http://0x7f.0.0.1/": MALFORMED,
    "http://127.0.0.0x1/": MALFORMED, "http://127.0.0.01/": MALFORMED, "http://0/": MALFORMED,
    "http://127.0.0.1./": MALFORMED, "http://127.0.0.1.1/": MALFORMED,
    "http://256.1.1.1/": MALFORMED, "http://2852039166/": MALFORMED,
    "http://0xa9fea9fe/": MALFORMED, "http://169.254.43518/": MALFORMED,
    "http://0251.0376.0251.0376/": MALFORMED, "http://0xa9.0xfe.0xa9.0xfe/": MALFORMED,
    "http://169.254.169.0xfe/": MALFORMED, "http://0x/": MALFORMED, "http://1.0x/": MALFORMED,
    "http://12７.1/": MALFORMED, "https://127.0.0.1%2f@good.test:80:80/": MALFORMED,
    "kafka://2130706433:9092/t": MALFORMED, "kafka://0x7f.1/t": MALFORMED,
    "kafka://good.test:9092,127.1:9092/t": MALFORMED,
    # digits and dots that are only other writings of ASCII
    "http://１２７.０.０.１/": IS_PRIVATE, "http://①②⑦.⓪.⓪.①/": IS_PRIVATE,
    "http://127。0。0。1/": IS_PRIVATE, "http://127．0．0．1/": IS_PRIVATE,
    "http://１６９.２５４.１６９.２５４/": IS_METADATA, "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/": IS_PRIVATE,
    # what is no URL to everybody, or another one
    "http://127.0.0.1\\@good.test/": MALFORMED, "http://good.test\\@127.0.0.1/": MALFORMED,
    "http://good.test\t@127.0.0.1/": MALFORMED, "http://127.0.0.1\t/": MALFORMED,
    "http://127.0.0\n.1/": MALFORMED, "http://127.0.0.1\r\nHost: good.test/": MALFORMED,
    "http://\x00127.0.0.1/": MALFORMED, "http:// 127.0.0.1/": MALFORMED,
    " http://127.0.0.1": MALFORMED, "http://%31%32%37.0.0.1/": MALFORMED,
    "http://127%2e0.0.1/": MALFORMED, "http://localhost%00.good.test/": MALFORMED,
    "http://%6cocalhost/": MALFORMED, "http:/127.0.0.1/": MALFORMED, "http:127.0.0.1/": MALFORMED,
    "http:///127.0.0.1/": MALFORMED, "//127.0.0.1/": MALFORMED,
    "http://127.0.0.1:80:80/": MALFORMED, "http://[127.0.0.1]/": MALFORMED,
    "http://[::1]@good.test:[::1]/": MALFORMED, "http://[::1%25lo%00]/": MALFORMED,
    "http://[1:2]/": MALFORMED, "http://[::ffff:127.1]/": MALFORMED, "http://[::1%lo]/": MALFORMED,
    "file:///etc/passwd": MALFORMED, "gopher://127.0.0.1:6379/_FLUSHALL": MALFORMED,
    "dict://127.0.0.1:11211/stats": MALFORMED, "ftp://127.0.0.1/": MALFORMED,
    # userinfo that looks like a host
    "http://good.test@169.254.169.254/": IS_METADATA, "http://a:b@good.test@127.0.0.1/": IS_PRIVATE,
    "http://good.test:80@127.0.0.1:80/": IS_PRIVATE, "http://good.test%40x@[::1]/": IS_PRIVATE,
    "http://127.0.0.1#@good.test/": IS_PRIVATE, "http://127.0.0.1?@good.test/": IS_PRIVATE,
    # this host
    "http://127.0.0.1/": IS_PRIVATE, "http://127.255.255.254:6379/": IS_PRIVATE,
    "http://0.0.0.0/": IS_PRIVATE, "http://[::]/": IS_PRIVATE, "http://[::1]/": IS_PRIVATE,
    "http://[0:0:0:0:0:0:0:1]/": IS_PRIVATE, "http://[::1%25lo]/": IS_PRIVATE,
    "http://localhost/": IS_PRIVATE, "http://LOCALHOST./": IS_PRIVATE,
    "http://a.localhost/": IS_PRIVATE, "kafka://127.0.0.1:9092/t": IS_PRIVATE,
    "kafka://[::1]:9092/t": IS_PRIVATE, "kafka://good.test,localhost./t": IS_PRIVATE,
    # networks inside
    "http://10.0.0.1/": IS_PRIVATE, "http://172.16.0.1/": IS_PRIVATE,
    "http://172.31.255.255/": IS_PRIVATE, "http://192.168.1.1/": IS_PRIVATE,
    "http://100.64.0.1/": IS_PRIVATE, "http://198.18.0.1/": IS_PRIVATE,
    "http://[fc00::1]/": IS_PRIVATE, "http://[fdff::1]/": IS_PRIVATE,
    # IPv6 outside of 2000::/3, some of it translated to IPv4 (RFC 7915)
    "http://[::ffff:0:127.0.0.1]/": IS_RESERVED, "http://[::ffff:0:a9fe:a9fe]/": IS_RESERVED,
    "http://[1::1]/": IS_RESERVED, "http://[4000::1]/": IS_RESERVED,
    "http://[a000::]/": IS_RESERVED,
    # IPv6 addresses that lead to IPv4 ones
    "http://[::ffff:127.0.0.1]/": IS_PRIVATE, "http://[::ffff:7f00:1]/": IS_PRIVATE,
    "http://[::ffff:a00:1]/": IS_PRIVATE, "http://[64:ff9b::127.0.0.1]/": IS_PRIVATE,
    "http://[64:ff9b::a00:1]/": IS_PRIVATE, "http://[::ffff:100.64.0.1]/": IS_PRIVATE,
    "http://[::ffff:169.254.169.254]/": IS_METADATA, "http://[64:ff9b::a9fe:a9fe]/": IS_METADATA,
    "http://[::169.254.169.254]/": IS_METADATA, "http://[2002:a9fe:a9fe::]/": IS_METADATA,
    "http://[2001:0:a9fe:a9fe::1]/": IS_METADATA, "http://[2001:0:1::5601:5601]/": IS_METADATA,
    "http://[::127.0.0.1]/": IS_RESERVED, "http://[2002:7f00:1::]/": IS_RESERVED,
    "http://[2002:808:808::1]/": IS_RESERVED, "http://[2001:0:7f00:1::]/": IS_RESERVED,
    "http://[64:ff9b:1::a00:1]/": IS_RESERVED,
    # clouds
    "http://169.254.169.254/latest/meta-data/": IS_METADATA, "http://169.254.170.2/": IS_METADATA,
    "http://[fd00:ec2::254]/": IS_METADATA, "http://[fd00:0ec2:0:0:0:0:0:0254]/": IS_METADATA,
    "http://[fd20:ce::254]/": IS_METADATA, "http://100.100.100.200/": IS_METADATA,
    "http://168.63.129.16/": IS_METADATA, "http://192.0.0.192/": IS_METADATA,
    "http://metadata.google.internal/": IS_METADATA,
    "http://METADATA.google.internal./": IS_METADATA, "http://metadata.goog/": IS_METADATA,
    "kafka://169.254.169.254:80/t": IS_METADATA,
    # addresses that no receiver has
    "http://169.254.0.1/": IS_RESERVED, "http://[fe80::1]/": IS_RESERVED,
    "http://[fe80::1%25eth0]/": IS_RESERVED, "http://[fec0::1]/": IS_RESERVED,
    "http://0.1.2.3/": IS_RESERVED, "http://192.0.0.8/": IS_RESERVED,
    "http://192.0.2.1/": IS_RESERVED, "http://192.88.99.1/": IS_RESERVED,
    "http://198.51.100.1/": IS_RESERVED, "http://203.0.113.1/": IS_RESERVED,
    "http://224.0.0.1/": IS_RESERVED, "http://239.255.255.250:1900/": IS_RESERVED,
    "http://240.0.0.1/": IS_RESERVED, "http://255.255.255.255/": IS_RESERVED,
    "http://[ff02::1]/": IS_RESERVED, "http://[100::1]/": IS_RESERVED,
    "http://[2001:db8::1]/": IS_RESERVED, "http://[2001:10::1]/": IS_RESERVED,
    "http://[3fff::1]/": IS_RESERVED, "http://[5f00::1]/": IS_RESERVED,
}  # fmt: skip


def verdict(guard: Guard, url: str) -> str | None:
    to = Destination(url=url)
    try:
        to.check("destination")
    except ValidationError:
        return MALFORMED
    return guard.url(url)


def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) >= 80


@pytest.mark.parametrize(("url", "why"), HOSTILE.items(), ids=ascii)
def test_a_hostile_url_is_refused_and_in_dev_all_but_private_ones(url: str, why: str) -> None:
    said, said_in_dev = verdict(PROD, url), verdict(DEV, url)
    assert said is not None
    assert said.endswith(why)
    assert said_in_dev == (None if why == IS_PRIVATE else said)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/", "http://8.8.8.8/", "https://[2606:4700::1111]:8443/x",
        "http://1.1.1.1:80/", "http://[::ffff:8.8.8.8]/", "http://[64:ff9b::808:808]/",
        "http://user:pw@api.example.com/", "http://127.0.0.1.example.com/", "http://x1/",
        "http://localhost.example.com/", "http://bücher.example/", "http://172.32.0.1/",
        "http://100.128.0.1/", "http://metadata.example.com/", "kafka://b-1:9092,8.8.4.4/t",
        "call://handler", "kafka:///t",
    ],
)  # fmt: skip
def test_the_rest_of_the_world_may_be_delivered_to(url: str) -> None:
    assert verdict(PROD, url) is None


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_the_same_mapped_and_by_nat64(
    one: ipaddress.IPv4Address,
) -> None:
    for inside in (f"::ffff:{one}", f"64:ff9b::{one}"):
        for guard in (DEV, PROD):
            assert guard.address(inside) == guard.address(str(one))


@given(st.ip_addresses())
def test_what_python_calls_private_is_never_allowed_in_prod(
    one: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if not one.is_global and one not in ipaddress.ip_network("64:ff9b::/96"):
        mapped = getattr(one, "ipv4_mapped", None)
        assert PROD.address(str(one)) or (mapped and mapped.is_global)


@pytest.mark.parametrize("text", ["", "nonsense", "127.1", "1.2.3.4.5", "fe80::1::2"])
def test_what_is_no_address_is_never_connected_to(text: str) -> None:
    assert Guard().address(text) == "no IP address"


# -- settings ----------------------------------------------------------------------------------


def guard(**settings: Any) -> Guard:
    return networks.guard(Config(**settings))


@pytest.mark.parametrize(
    ("settings", "private"),
    [
        ({}, True),
        ({"environment": "prod"}, False),
        ({"environment": "staging"}, False),
        ({"environment": "prod", "allow_private_networks": "on"}, True),
        ({"allow_private_networks": "off"}, False),
    ],
)
def test_private_networks_are_allowed_in_dev_only_unless_told_otherwise(
    settings: dict[str, Any], private: bool
) -> None:
    assert guard(**settings).private is private


@pytest.mark.parametrize("setting", [{}, {"allow_private_networks": "on"}])
@pytest.mark.parametrize("address", sorted(map(str, METADATA)))
def test_metadata_addresses_are_refused_whatever_is_allowed(
    address: str, setting: dict[str, Any]
) -> None:
    everything = guard(allowed_networks=f"0.0.0.0/0, ::/0, {address}", **setting)
    assert everything.address(address) == IS_METADATA


@pytest.mark.parametrize(
    ("allowed", "denied", "address", "why"),
    [
        ("10.1.0.0/16", "", "10.1.2.3", None),
        ("10.1.0.0/16", "", "10.2.2.3", IS_PRIVATE),
        ("10.1.0.0/16", "", "::ffff:10.1.2.3", None),
        ("192.0.2.0/24", "", "192.0.2.9", None),
        ("169.254.0.0/16", "", "169.254.1.1", None),
        ("fe80::/10", "", "fe80::1%eth0", None),
        ("", "8.8.8.0/24", "8.8.8.8", IS_DENIED),
        ("", "8.8.8.0/24", "64:ff9b::8.8.8.8", IS_DENIED),
        ("", "8.8.8.0/24", "8.8.4.4", None),
        ("10.1.0.0/16", "10.1.9.0/24", "10.1.9.1", IS_DENIED),
        ("10.1.0.0/16", "10.1.9.0/24", "10.1.8.1", None),
        ("10.1.0.0/16", "10.0.0.0/8", "10.1.8.1", None),
        ("10.1.0.0/16", "10.1.0.0/16", "10.1.8.1", IS_DENIED),
        ("10.1.2.3", "0.0.0.0/0, ::/0", "10.1.2.3", None),
        ("10.1.2.3", "0.0.0.0/0, ::/0", "10.1.2.4", IS_DENIED),
        ("10.1.2.3", "0.0.0.0/0, ::/0", "2606:4700::1111", IS_DENIED),
        ("", "::ffff:0:0/96", "::ffff:8.8.8.8", IS_DENIED),
    ],
)
def test_the_smaller_of_the_named_networks_decides(
    allowed: str, denied: str, address: str, why: str | None
) -> None:
    rules = guard(environment="prod", allowed_networks=allowed, denied_networks=denied)
    assert rules.address(address) == why


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://api.example.com/", None),
        ("https://API.EXAMPLE.COM./", None),
        ("https://a.b.hooks.test/", None),
        ("https://hooks.test/", "hooks.test is not in ALLOWED_HOSTS"),
        ("https://evilhooks.test/", "evilhooks.test is not in ALLOWED_HOSTS"),
        ("https://api.example.com.evil.test/", "api.example.com.evil.test is not in ALLOWED_HOSTS"),
        ("https://api.example.com@evil.test/", "evil.test is not in ALLOWED_HOSTS"),
        ("https://xn--bcher-kva.example/", None),
        ("https://8.8.8.8/", None),
        ("https://[2606:4700::1111]/", None),
        ("https://8.8.4.4/", "8.8.4.4 is not in ALLOWED_HOSTS"),
        ("https://api.example.com:8443/", "port 8443 is not in ALLOWED_PORTS"),
        ("http://api.example.com:9005/", "HTTPS_ONLY refuses http://"),
        ("https://api.example.com:9005/", None),
        ("https://api.example.com:9010/", "port 9010 is not in ALLOWED_PORTS"),
        ("kafka://api.example.com:9001/t", None),
        ("kafka://evil.test:9001/t", "evil.test is not in ALLOWED_HOSTS"),
        ("kafka://api.example.com/t", "port 9092 is not in ALLOWED_PORTS"),
    ],
)
def test_only_listed_hosts_and_ports_and_https(url: str, why: str | None) -> None:
    rules = guard(
        allowed_hosts="api.example.com, *.hooks.test, bücher.example, 8.8.8.8, [2606:4700::1111]",
        allowed_ports="443, 9000-9009",
        https_only="on",
    )
    assert verdict(rules, url) == why


def test_brokers_that_the_operator_named_are_not_judged() -> None:
    named = {"kafka_brokers": "10.0.0.1:9092", "kafka_allowed_brokers": "kafka.inside,*"}
    rules = guard(environment="prod", allowed_ports="443", **named)
    assert verdict(rules, "kafka://10.0.0.1/t") is None
    assert verdict(rules, "kafka://Kafka.Inside:9092/t") is None
    assert verdict(rules, "kafka://10.0.0.1:9093/t") == "port 9093 is not in ALLOWED_PORTS"
    assert verdict(rules, "http://10.0.0.1:9092/") == "port 9092 is not in ALLOWED_PORTS"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("allowed_networks", "10.1.2.3/8"),
        ("allowed_networks", "10.0.0.0/8,nonsense"),
        ("denied_networks", "10.0.0.0/33"),
        ("denied_networks", [7]),
        ("allowed_hosts", "https://a.test"),
        ("allowed_hosts", "a.*.test"),
        ("allowed_hosts", "*"),
        ("allowed_hosts", "a.test:80"),
        ("allowed_ports", "0"),
        ("allowed_ports", "65536"),
        ("allowed_ports", "9-1"),
        ("allowed_ports", "http"),
        ("allowed_ports", [True]),
        ("https_only", "maybe"),
        ("allow_private_networks", "some"),
    ],
)
def test_a_wrong_setting_names_itself_and_what_is_allowed(name: str, value: Any) -> None:
    error = refused(**{name: value})
    assert error.field == name
    assert str(error).startswith(f"{name.upper()}: ")
    assert "must be" in str(error)


@pytest.mark.parametrize("way", [lambda text: text, lambda text: text.split(",")])
def test_lists_are_text_or_lists(way: Callable[[str], Any]) -> None:
    config = Config(allowed_networks=way("10.1.0.0/16,::1"), allowed_ports=way("443,8000-8009"))
    assert config.allowed_networks == ("10.1.0.0/16", "::1/128")
    assert config.allowed_ports == ("443", "8000-8009")
    assert Config(allowed_ports=[443]).allowed_ports == ("443",)
