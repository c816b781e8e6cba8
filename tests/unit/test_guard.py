"""The guard at the moment of connecting, over real sockets, and what becomes of what it refuses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_network
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebound import Config, Destination, Rebound
from rebound.adapters.producers.http import HttpProducer, _address
from rebound.adapters.producers.kafka import KafkaProducer
from rebound.adapters.producers.resolver import Resolver
from rebound.domain.destination import place
from rebound.domain.errors import DeliveryError, Rejected, ValidationError
from rebound.domain.networks import IS_DENIED, IS_METADATA, IS_PRIVATE, Guard
from rebound.domain.task import Task
from tests.receiver import Receiver, answer, failing, receiving, task
from tests.support import until

INSIDE, OUTSIDE = "127.0.0.2", "127.0.0.1"
RULES = Guard(denied=(ip_network(f"{INSIDE}/32"),))
"""Of two addresses of this host one stands for what must not be reached."""


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Receiver, Receiver]]:
    """Receivers on one port of both addresses: outside, inside."""
    async with AsyncExitStack() as stack:
        outside = await stack.enter_async_context(receiving())
        inside = Receiver()
        server = await asyncio.start_server(inside.serve, INSIDE, outside.port)
        stack.callback(server.close)
        inside.port = outside.port
        yield outside, inside


@pytest.fixture
async def both() -> AsyncIterator[tuple[Receiver, Receiver]]:
    async with pair() as made:
        yield made


@pytest.fixture
async def producer() -> AsyncIterator[HttpProducer]:
    made = HttpProducer(guard=RULES)
    yield made
    await made.aclose()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """What name servers answer: for each name one list of addresses after the other."""
    known: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *rest: Any, **more: Any) -> list[Any]:
        if host not in known:
            return list(real(host, port, *rest, **more))
        addresses = known[host].pop(0) if len(known[host]) > 1 else known[host][0]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        families = [socket.AF_INET6 if ":" in one else socket.AF_INET for one in addresses]
        return [
            (family, socket.SOCK_STREAM, 6, "", (one, port))
            for family, one in zip(families, addresses, strict=True)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addresses", "why"),
    [
        ([INSIDE], IS_DENIED),
        (["169.254.169.254"], IS_METADATA),
        (["::ffff:169.254.169.254"], IS_METADATA),
        (["64:ff9b::a9fe:a9fe", "fd00:ec2::254"], IS_METADATA),
    ],
)
async def test_a_name_that_leads_inside_is_rejected_without_telling_where(
    addresses: list[str],
    why: str,
    names: dict[str, list[list[str]]],
    both: tuple[Receiver, Receiver],
    producer: HttpProducer,
) -> None:
    names["innocent.test"] = [addresses]
    one = task(f"http://innocent.test:{both[0].port}/")
    for error in await asyncio.gather(*(failing(producer, one) for _ in range(3))):
        assert (type(error), str(error)) == (Rejected, f"innocent.test is {why}")
    assert [receiver.connections for receiver in both] == [0, 0]


async def test_of_several_addresses_only_allowed_ones_are_connected_to(
    names: dict[str, list[list[str]]], both: tuple[Receiver, Receiver], producer: HttpProducer
) -> None:
    names["mixed.test"] = [[INSIDE, OUTSIDE, "169.254.169.254"]]
    await producer.send(task(f"http://mixed.test:{both[0].port}/"))
    assert [len(receiver.requests) for receiver in both] == [1, 0]
    assert both[0].requests[0].headers["Host"] == f"mixed.test:{both[0].port}"


async def test_an_allowed_address_that_is_down_is_tried_again_and_not_rejected(
    names: dict[str, list[list[str]]], producer: HttpProducer
) -> None:
    async with pair() as (outside, _):
        port = outside.port
    names["mixed.test"] = [[OUTSIDE, INSIDE]]
    error = await failing(producer, task(f"http://mixed.test:{port}/"))
    assert (type(error), str(error)) == (DeliveryError, "connection refused")


async def test_an_answer_that_changes_between_check_and_connect_leads_nowhere_else(
    names: dict[str, list[list[str]]], both: tuple[Receiver, Receiver]
) -> None:
    outside, inside = both
    outside.reply = inside.reply = answer(200, Connection="close")
    for first, then in ((OUTSIDE, INSIDE), (INSIDE, OUTSIDE)):
        names["rebinding.test"] = [[first], [then]]
        producer = HttpProducer(guard=RULES)
        one = task(f"http://rebinding.test:{outside.port}/")
        if first == INSIDE:
            assert type(await failing(producer, one)) is Rejected
            await producer.send(one)
        else:
            for _ in range(3):  # a new connection each, to the address that was judged
                await producer.send(one)
            producer._exchange._connector.clear_dns_cache()  # type: ignore[union-attr]
            assert type(await failing(producer, one)) is Rejected
        await producer.aclose()
    assert (len(outside.requests), inside.connections) == (4, 0)


async def test_what_no_resolver_has_judged_is_caught_at_the_socket(
    both: tuple[Receiver, Receiver], producer: HttpProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    judging = Resolver.resolve
    monkeypatch.setattr(
        Resolver, "resolve", lambda _, *of, **by: judging(Resolver(), INSIDE, *of[1:], **by)
    )
    error = await failing(producer, task(f"http://any.test:{both[0].port}/"))
    assert (type(error), str(error)) == (Rejected, f"{INSIDE} is {IS_DENIED}")
    assert both[1].connections == 0


async def test_a_kept_connection_is_used_again_without_another_look(
    names: dict[str, list[list[str]]], both: tuple[Receiver, Receiver], producer: HttpProducer
) -> None:
    names["stable.test"] = [[OUTSIDE], []]
    for _ in range(3):
        await producer.send(task(f"http://stable.test:{both[0].port}/"))
    assert (both[0].connections, len(both[0].requests)) == (1, 3)


# -- literals, hosts, ports --------------------------------------------------------------------


@pytest.mark.parametrize("host", [INSIDE, f"[::ffff:{INSIDE}]", f"good.test@{INSIDE}"])
async def test_a_literal_address_is_judged_though_no_resolver_sees_it(
    host: str, both: tuple[Receiver, Receiver], producer: HttpProducer
) -> None:
    error = await failing(producer, task(f"http://{host}:{both[0].port}/"))
    assert type(error) is Rejected
    assert str(error).endswith(f" is {IS_DENIED}")
    assert both[1].connections == 0


async def test_a_rule_made_stricter_holds_for_tasks_that_are_stored_already() -> None:
    rules = Guard(https_only=True, hosts=("a.test",), ports=(range(443, 444),))
    strict = HttpProducer(guard=rules)
    for url, why in (
        ("http://a.test/", "HTTPS_ONLY refuses http://"),
        ("https://b.test/", "b.test is not in ALLOWED_HOSTS"),
        ("https://a.test:22/", "port 22 is not in ALLOWED_PORTS"),
    ):
        error = await failing(strict, task(url))
        assert (type(error), str(error)) == (Rejected, why)
    await strict.aclose()


@pytest.mark.parametrize("through", ["proxy", "session"])
async def test_with_a_proxy_or_a_session_of_the_caller_what_the_url_says_is_judged(
    through: str, both: tuple[Receiver, Receiver]
) -> None:
    outside, inside = both
    async with aiohttp.ClientSession() as session:
        ways: dict[str, dict[str, Any]] = {
            "proxy": {"proxy": f"http://{INSIDE}:{inside.port}"},  # the operator's own choice
            "session": {"session": session},
        }
        producer = HttpProducer(guard=RULES, **ways[through])
        error = await failing(producer, task(f"http://{INSIDE}:{outside.port}/"))
        assert type(error) is Rejected
        await producer.send(task(f"http://{OUTSIDE}:{outside.port}/"))
        await producer.aclose()
    assert len((inside if through == "proxy" else outside).requests) == 1


# -- Kafka -------------------------------------------------------------------------------------


def record(url: str) -> Task:
    return task("kafka:///t", to={"url": url, "timeout": None})


@pytest.mark.parametrize(
    ("answers", "kind", "said"),
    [
        ([["8.8.8.8", "10.0.0.1"]], Rejected, f"broker.test is {IS_PRIVATE}"),
        ([["169.254.169.254"]], Rejected, f"broker.test is {IS_METADATA}"),
        ([[]], DeliveryError, "cannot resolve host broker.test"),
    ],
)
async def test_brokers_that_a_task_names_are_judged_before_they_get_a_client(
    answers: list[list[str]],
    kind: type[DeliveryError],
    said: str,
    names: dict[str, list[list[str]]],
) -> None:
    names["broker.test"] = answers
    producer = KafkaProducer(["localhost:9092"], {}, guard=Guard(private=False))
    results = await asyncio.gather(
        *(producer.send(record("kafka://broker.test/t")) for _ in range(3)), return_exceptions=True
    )
    assert {(type(each), str(each)) for each in results} == {(kind, said)}
    assert not producer._clients
    await producer.aclose()


async def test_a_closed_producer_looks_no_broker_up_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    async def hang(*_: Any) -> list[Any]:
        return await never

    monkeypatch.setattr(Resolver, "resolve", hang)
    producer = KafkaProducer(["localhost:9092"], {})
    sending = asyncio.create_task(producer.send(record("kafka://broker.test/t")))
    await until(lambda: producer._judging)
    await producer.aclose()
    await asyncio.wait([sending])
    assert sending.cancelled()


# -- what becomes of tasks ---------------------------------------------------------------------


def config(**settings: Any) -> Config:
    return Config(store_url="sqlite://:memory:", poll_interval="10ms", **settings)


def of(id_: str, url: str, **fields: Any) -> Task:
    to = Destination(url=url)
    return Task(id=id_, source="tests", destination=to, delay=0, message_data="x", **fields)


async def dead_one(rebound: Rebound, id_: str) -> Task:
    async with asyncio.timeout(20):
        while (one := await rebound.get_task(id_)) is None or one.state != "dead":
            await asyncio.sleep(0.005)
    return one


@pytest.mark.parametrize(
    ("settings", "url", "why"),
    [
        ({"environment": "prod"}, "http://127.0.0.1/", f"127.0.0.1 is {IS_PRIVATE}"),
        ({"environment": "prod"}, "http://localhost:80/", f"localhost is {IS_PRIVATE}"),
        ({}, "http://169.254.169.254/", f"169.254.169.254 is {IS_METADATA}"),
        ({"allowed_hosts": "a.test"}, "http://b.test/", "b.test is not in ALLOWED_HOSTS"),
        ({"allowed_ports": "443"}, "http://a.test/", "port 80 is not in ALLOWED_PORTS"),
        ({"https_only": True}, "http://a.test/", "HTTPS_ONLY refuses http://"),
        ({"allowed_ports": "443"}, "kafka://a/t", "port 9092 is not in ALLOWED_PORTS"),
    ],
)
async def test_what_can_be_known_is_refused_at_creation_for_both_legs(
    settings: dict[str, Any], url: str, why: str
) -> None:
    async with Rebound(config(**settings), worker=False) as rebound:
        with pytest.raises(ValidationError) as caught:
            await rebound.create_task(of("1", url))
        assert (caught.value.field, str(caught.value)) == ("destination", f"destination: {why}")
        fine, bad = "https://a.test/", Destination(url=url)
        with pytest.raises(ValidationError) as caught:
            await rebound.create_task(of("2", fine, dead_destination=bad))
        assert str(caught.value) == f"dead_destination: {why}"


async def test_a_name_that_leads_inside_ends_the_main_leg_and_a_guarded_dead_leg_the_task(
    names: dict[str, list[list[str]]], both: tuple[Receiver, Receiver]
) -> None:
    outside, inside = both
    names["inside.test"], names["outside.test"] = [[INSIDE]], [[OUTSIDE]]
    good, bad = (Destination(url=f"http://{n}:{outside.port}/") for n in reversed([*names]))
    async with Rebound(config(denied_networks=INSIDE)) as rebound:
        for id_, dead in (("a", good), ("b", bad), ("c", None)):
            await rebound.create_task(of(id_, bad.url, dead_destination=dead))
        for id_, letter, attempts in (("a", "delivered", 2), ("b", "failed", 2), ("c", "none", 1)):
            one = await dead_one(rebound, id_)
            assert (one.dead_reason, one.dead_letter, one.attempt) == ("rejected", letter, 1)
            assert len(one.attempts) == attempts
            assert one.attempts[0].outcome == "rejected"
            assert one.last_error == f"inside.test is {IS_DENIED}"
    assert (len(outside.requests), inside.connections) == (1, 0)
    assert outside.requests[0].headers["X-Rebound-Dead-Reason"] == "rejected"
    assert "inside.test is in DENIED" in outside.requests[0].headers["X-Rebound-Last-Error"]


# -- one URL, read by several ------------------------------------------------------------------

PIECES = st.sampled_from(
    ["http://", "https://", "a.test", "127.0.0.1", "[::1]", "[", "]", "@", ":", "80", "/", "?", "#",
     "\\", "%40", "%2f", ".", "。", "＠", "／", "：", "é", "１", "ß", ";", "&", "=", "..", "x"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=8).map(lambda pieces: "http://" + "".join(pieces)))
def test_the_host_that_is_judged_is_the_one_that_is_connected_to(url: str) -> None:
    try:
        judged = place(url)
        sent = _address(url).url
    except (ValidationError, Rejected):
        return
    assert judged.peers == (((sent.raw_host or "").lower(), sent.port),)
