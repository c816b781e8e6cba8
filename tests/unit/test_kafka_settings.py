"""The Kafka settings: what they come to, what they refuse, and what nobody gets to see."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from rebound import Config, Destination, Rebound
from rebound.domain.errors import ValidationError
from rebound.settings.kafka import producing, refusal, security
from tests.support import task
from tests.unit.test_settings import refusal as refused

HUSH = {
    "kafka_security_protocol": "sasl_ssl", "kafka_sasl_mechanism": "plain",
    "kafka_sasl_username": "me", "kafka_sasl_password": "hush",
}  # fmt: skip


def config(**settings: Any) -> Config:
    return Config(store_url="sqlite://:memory:", **settings)


def test_without_anything_there_is_only_a_limit_of_time_and_of_size() -> None:
    assert security(Config()) == {}
    assert producing(Config()) == {"message.max.bytes": 1_638_400, "delivery.timeout.ms": 30_000}
    assert producing(Config(lease="1s"))["delivery.timeout.ms"] == 500
    assert producing(Config(lease="1h"))["delivery.timeout.ms"] == 30_000


def test_every_setting_becomes_its_property_and_wins_over_kafka_config() -> None:
    given = config(
        kafka_security_protocol="SASL_SSL", kafka_sasl_mechanism="scram-sha-512",
        kafka_sasl_username="me", kafka_sasl_password="hush", kafka_ssl_ca_location="ca.pem",
        kafka_ssl_certificate_location="cert.pem", kafka_ssl_key_location="key.pem",
        kafka_config='{"sasl.username": "other", "compression.type": "zstd", "linger.ms": 1.5}',
    )  # fmt: skip
    assert security(given) == {
        "security.protocol": "sasl_ssl", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "me",
        "sasl.password": "hush", "ssl.ca.location": "ca.pem",
        "ssl.certificate.location": "cert.pem", "ssl.key.location": "key.pem",
        "compression.type": "zstd", "linger.ms": 1.5,
    }  # fmt: skip


def test_an_own_limit_of_time_is_kept() -> None:
    assert "delivery.timeout.ms" not in producing(Config(kafka_config={"message.timeout.ms": 5}))
    assert producing(Config(kafka_config={"delivery.timeout.ms": 5}))["delivery.timeout.ms"] == 5


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ("no", "a JSON object"),
        ("[1]", "a JSON object"),
        ('{"a": {"b": 1}}', "strings, numbers and booleans"),
        ({"a": None}, "strings, numbers and booleans"),
        (5, "a JSON object"),
        ({"bootstrap.servers": "h"}, "must not have bootstrap.servers"),
        ('{"acks": 1}', "must not have acks"),
        ({"error_cb": "x"}, "must not have error_cb"),
        ({"delivery.timeout.ms": 60_000}, "below LEASE, which is 60000 ms"),
        ({"message.timeout.ms": 0}, "above 0"),
        ({"delivery.timeout.ms": "hush"}, "above 0"),
    ],
)
def test_what_is_no_property_or_breaks_the_promise_is_refused(given: Any, allowed: str) -> None:
    error = refused(kafka_config=given)
    assert error.field == "kafka_config"
    assert str(error).startswith("KAFKA_CONFIG: ")
    assert allowed in str(error)
    assert "hush" not in str(error)


@pytest.mark.parametrize(
    ("name", "given", "allowed"),
    [
        ("kafka_security_protocol", "tls", "plaintext, ssl, sasl_plaintext, sasl_ssl"),
        ("kafka_sasl_mechanism", "md5", "plain, scram-sha-256"),
        ("kafka_allowed_brokers", "a:0", "must be * or host:port"),
        ("kafka_concurrency", 0, "from 1 to 100000"),
    ],
)
def test_a_wrong_value_is_one_line(name: str, given: Any, allowed: str) -> None:
    error = refused(**{name: given})
    assert error.field == name
    assert allowed in str(error)


@pytest.mark.parametrize("name", ["mechanism", "username", "password"])
def test_a_login_without_a_protocol_that_has_one_is_refused(name: str) -> None:
    value = {"mechanism": "PLAIN"}.get(name, "hush")
    error = refused(**{f"kafka_sasl_{name}": value})
    assert str(error) == (
        f"KAFKA_SASL_{name.upper()}: needs KAFKA_SECURITY_PROTOCOL=sasl_ssl or sasl_plaintext"
    )


def test_a_login_needs_to_say_how() -> None:
    error = refused(kafka_security_protocol="sasl_plaintext")
    assert error.field == "kafka_sasl_mechanism"
    Config(kafka_config={"security.protocol": "sasl_ssl", "sasl.mechanisms": "PLAIN"})


def test_secrets_never_show() -> None:
    given = config(**HUSH, kafka_config={"ssl.key.password": "hush"})
    assert "hush" not in repr(given)
    assert "kafka_sasl_password='***'" in repr(given)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kafka_config": {"lingerms": 5}}, 'KAFKA_CONFIG: No such configuration property: "ling'),
        ({"kafka_config": {"linger.ms": "x", "sasl.password": "hush"}}, "KAFKA_CONFIG: Invalid"),
        ({"kafka_config": {"on_delivery": "x"}}, "KAFKA_CONFIG: "),
        (
            {"kafka_security_protocol": "ssl", "kafka_ssl_ca_location": "/nowhere.pem"},
            "KAFKA_SSL_CA_LOCATION: ",
        ),
        ({**HUSH, "kafka_sasl_mechanism": "gssapi"}, "KAFKA_SASL_MECHANISM: No provider"),
    ],
)
def test_what_librdkafka_refuses_stops_the_start(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Rebound(config(**settings))
    assert str(caught.value).startswith(said)
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


# -- where tasks may point ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "url", "why"),
    [
        ({}, "kafka://any:1/t", None),
        ({"environment": "prod"}, "kafka://localhost:9092/t", None),
        ({"environment": "prod"}, "kafka://LocalHost/t", None),
        ({"environment": "prod"}, "kafka:///t", None),
        ({"environment": "prod"}, "https://any/t", None),
        ({"environment": "prod"}, "kafka://other:9092/t", "other:9092"),
        ({"environment": "prod"}, "kafka://localhost:9092,b:1/t", "b:1"),
        ({"environment": "prod", "kafka_brokers": "a,b:2"}, "kafka://b:2,A:9092/t", None),
        ({"environment": "prod", "kafka_allowed_brokers": "*"}, "kafka://other/t", None),
        ({"kafka_allowed_brokers": "c:3"}, "kafka://c:3/t", None),
        ({"kafka_allowed_brokers": "c:3"}, "kafka:///t", None),
        ({"kafka_allowed_brokers": "c:3"}, "kafka://localhost:9092/t", "localhost:9092"),
    ],
)
def test_tasks_may_name_only_brokers_that_are_allowed(
    settings: dict[str, Any], url: str, why: str | None
) -> None:
    said = refusal(Config(**settings))(Destination(url=url))
    assert said == (why and f"KAFKA_ALLOWED_BROKERS does not allow {why}")


async def test_a_task_to_brokers_that_are_not_allowed_is_refused_at_creation() -> None:
    async with Rebound(config(kafka_allowed_brokers="a:1"), worker=False) as rebound:
        await rebound.create_task(task("1", destination=Destination(url="kafka://A:1/t")))
        bad = Destination(host="b", port=1, topic="t")
        with pytest.raises(ValidationError, match=r"^destination: .*does not allow b:1") as caught:
            await rebound.create_task(task("2", destination=bad))
        assert caught.value.field == "destination"
        with pytest.raises(ValidationError, match=r"^dead_destination: .*does not allow b:1"):
            await rebound.create_task(task("3", dead_destination=bad))


async def test_without_the_extra_tasks_to_kafka_are_refused_naming_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [*sys.modules]:
        if name.startswith(("confluent_kafka", "rebound.adapters.producers.kafka")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("rebound.adapters.producers.kafka", raising=False)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    async with Rebound(config()) as rebound:
        assert set(rebound.engine.producers) == {"http"}
        with pytest.raises(ValidationError) as caught:
            await rebound.create_task(task("1", destination=Destination(url="kafka:///t")))
    assert str(caught.value) == (
        "destination: kafka:// needs an extra: pip install 'rebound-retry[kafka]'"
    )
