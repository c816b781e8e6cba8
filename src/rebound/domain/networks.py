"""Where deliveries may go: rules about schemes, hosts, ports and the addresses connected to."""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, NamedTuple

from rebound.domain.destination import place

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

METADATA: Final = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254", "fd00:ec2::254", "fd20:ce::254",  # most clouds; AWS, Google by IPv6
            "169.254.170.2", "169.254.170.23", "fd00:ec2::23",  # AWS: containers and pods
            "100.100.100.200",  # Alibaba
            "168.63.129.16",  # Azure, from a public range
            "192.0.0.192",  # Oracle
            "169.254.42.42", "fd00:42::42",  # Scaleway
        ),
    )
)  # fmt: skip
"""Where clouds hand out credentials to whoever asks from inside."""
METADATA_NAMES: Final = ("metadata.google.internal", "metadata.goog", "instance-data.ec2.internal")
PRIVATE: Final = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/32", "::/128",  # the own host, as connect() takes it
            "127.0.0.0/8", "::1/128",
            "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7",
            "100.64.0.0/10",  # between a provider and its customers, RFC 6598
            "198.18.0.0/15",  # benchmarks, RFC 2544
        ),
    )
)  # fmt: skip
RESERVED: Final = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
            "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
            "::/3", "4000::/2", "8000::/1",  # all but 2000::/3, where the internet is, RFC 4291
            "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
        ),
    )
)  # fmt: skip
"""IANA's special-purpose ranges that no receiver has; `is_global` lacks a third of them."""
NAT64: Final = IPv6Network("64:ff9b::/96")
COMPATIBLE: Final = IPv6Network("::/96")
LOOPBACK: Final = ("127.0.0.1", "::1")

IS_METADATA: Final = "a metadata address of a cloud, which no setting allows"
IS_DENIED: Final = "in DENIED_NETWORKS"
IS_PRIVATE: Final = "a private address, which only ALLOWED_NETWORKS or ALLOW_PRIVATE_NETWORKS allow"
IS_RESERVED: Final = "a reserved address, and not in ALLOWED_NETWORKS"


class Guard(NamedTuple):
    """The rules. What is empty allows everything of its kind."""

    private: bool = True
    """Whether loopback, private and shared addresses may be connected to."""
    allowed: tuple[Network, ...] = ()
    """Networks that may be connected to although private or reserved."""
    denied: tuple[Network, ...] = ()
    """Where one is in `allowed` too, the smaller network decides; of equal ones, this."""
    hosts: tuple[str, ...] = ()
    """The only hosts: names, addresses, or `*.name` for what is below a name; in lower case."""
    ports: tuple[range, ...] = ()
    """The only ports."""
    https_only: bool = False
    brokers: frozenset[tuple[str, int]] = frozenset()
    """Kafka brokers that the operator named, which are not judged."""

    def url(self, url: str) -> str | None:
        """Why nothing may be sent there, as far as a valid URL tells, or None."""
        where = place(url)
        if self.https_only and where.origin.startswith("http://"):
            return "HTTPS_ONLY refuses http://"
        for peer in where.peers:
            if where.kind == "kafka" and peer in self.brokers:
                continue
            if why := self.peer(*peer):
                return why
        return None

    def peer(self, host: str, port: int) -> str | None:
        """Why there may be no connection to a host and port by what they say, or None."""
        name = host.lower().removesuffix(".")
        if self.ports and not any(port in ports for ports in self.ports):
            return f"port {port} is not in ALLOWED_PORTS"
        if self.hosts and not any(_covers(pattern, name) for pattern in self.hosts):
            return f"{name} is not in ALLOWED_HOSTS"
        if name in METADATA_NAMES:
            return f"{name} is {IS_METADATA}"
        if name == "localhost" or name.endswith(".localhost"):  # RFC 6761
            reasons = [self.address(address) for address in LOOPBACK]
            return f"{name} is {reasons[0]}" if all(reasons) else None
        if ":" not in name and not name[-1:].isdigit():
            return None
        why = self.address(name) if _parsed(name) else None
        return f"{name} is {why}" if why else None

    def address(self, text: str) -> str | None:
        """What keeps this address from being connected to, or None. For every resolved one."""
        one = _parsed(text)
        if one is None:
            return "no IP address"
        meant = _reached(one)
        if METADATA & {one, meant, *_hidden(one)}:
            return IS_METADATA
        named = [(net.num_addresses, False) for net in self.denied if one in net or meant in net]
        named += [(net.num_addresses, True) for net in self.allowed if one in net or meant in net]
        if named:
            return None if min(named)[1] else IS_DENIED
        if any(meant in net for net in PRIVATE):
            return None if self.private else IS_PRIVATE
        return IS_RESERVED if any(meant in net for net in RESERVED) else None


def _parsed(text: str) -> Address | None:
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _reached(one: Address) -> Address:
    """The IPv4 address that packets to `one` go to, by mapping or NAT64 (RFC 6052); else `one`."""
    if isinstance(one, IPv6Address):
        if one.ipv4_mapped is not None:
            return one.ipv4_mapped
        if one in NAT64:
            return _last_four(one)
    return one


def _hidden(one: Address) -> tuple[Address, ...]:
    """IPv4 addresses inside of an IPv6 one by 6to4, Teredo, or as its last four bytes."""
    if isinstance(one, IPv4Address):
        return ()
    inner = (one.sixtofour, *(one.teredo or ()), _last_four(one) if one in COMPATIBLE else None)
    return tuple(each for each in inner if each is not None)


def _last_four(one: IPv6Address) -> IPv4Address:
    return IPv4Address(int(one) & 0xFFFF_FFFF)


def _covers(pattern: str, name: str) -> bool:
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern
