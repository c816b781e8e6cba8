"""What the Kafka settings come to: librdkafka's properties, and which brokers tasks may name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from rebound.domain.brokers import normal, route
from rebound.domain.destination import Destination
from rebound.domain.errors import ValidationError
from rebound.settings.readers import choice

if TYPE_CHECKING:
    from rebound.settings import Config

Value = str | int | float | bool

PROPERTIES: Final = {
    "kafka_security_protocol": "security.protocol",
    "kafka_sasl_mechanism": "sasl.mechanism",
    "kafka_sasl_username": "sasl.username",
    "kafka_sasl_password": "sasl.password",
    "kafka_ssl_ca_location": "ssl.ca.location",
    "kafka_ssl_certificate_location": "ssl.certificate.location",
    "kafka_ssl_key_location": "ssl.key.location",
}
"""librdkafka's name of each setting that is one of its properties."""
OURS: Final = (
    "bootstrap.servers", "metadata.broker.list", "acks", "request.required.acks", "logger",
)  # fmt: skip
"""Properties that KAFKA_CONFIG must not have: where tasks go, and that they arrive."""
TIMEOUTS: Final = ("delivery.timeout.ms", "message.timeout.ms")
MAX_DELIVERY: Final = 30.0
"""Seconds that a record has to be acknowledged, where half of the lease is not less."""

protocol = choice({p: p for p in ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")})
mechanism = choice(
    {m.lower(): m for m in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI")}
)


def properties(value: object) -> Mapping[str, Value]:
    """librdkafka properties, as an object or its JSON. Raises ValueError."""
    allowed = "must be a JSON object of librdkafka properties: strings, numbers and booleans"
    try:
        found = msgspec.convert(value, dict[str, Value])
    except msgspec.ValidationError:
        found = {}
        if not isinstance(value, str):
            raise ValueError(allowed) from None
    if isinstance(value, str):
        try:
            found = msgspec.json.decode(value, type=dict[str, Value])
        except msgspec.MsgspecError:
            raise ValueError(allowed) from None
    for name in found:
        if name in OURS or name.endswith("_cb"):
            raise ValueError(f"must not have {name}, which Rebound sets itself")
    return found


def check(config: Config) -> None:
    """Raise ValidationError for settings that do not go together."""
    wanted = security(config)
    sasl = str(wanted.get("security.protocol", "")).lower().startswith("sasl_")
    for name in ("kafka_sasl_mechanism", "kafka_sasl_username", "kafka_sasl_password"):
        if getattr(config, name) is not None and not sasl:
            raise ValidationError(
                f"{name.upper()}: needs KAFKA_SECURITY_PROTOCOL=sasl_ssl or sasl_plaintext",
                field=name,
            )
    if sasl and not wanted.keys() & {"sasl.mechanism", "sasl.mechanisms"}:
        raise ValidationError(
            "KAFKA_SASL_MECHANISM: is needed with such a KAFKA_SECURITY_PROTOCOL",
            field="kafka_sasl_mechanism",
        )
    for name in TIMEOUTS:
        timeout = wanted.get(name)
        if timeout is not None and not 0 < _number(timeout) < config.lease * 1000:
            raise ValidationError(
                f"KAFKA_CONFIG: {name} must be above 0 and below LEASE, which is"
                f" {config.lease * 1000:g} ms",
                field="kafka_config",
            )


def _number(value: Value) -> float:
    try:
        return float(value)
    except ValueError:
        return 0


def security(config: Config) -> dict[str, Value]:
    """What every client of the brokers needs, consumers too. Holds secrets: not to be shown."""
    given = {name: getattr(config, setting) for setting, name in PROPERTIES.items()}
    found = {name: value for name, value in given.items() if value is not None}
    return {**(config.kafka_config or {}), **found}


def producing(config: Config) -> dict[str, Value]:
    """The properties of a producer, but for its brokers. Holds secrets: not to be shown."""
    limit = min(MAX_DELIVERY, config.lease / 2)
    wanted = security(config)
    timeouts = {} if wanted.keys() & set(TIMEOUTS) else {"delivery.timeout.ms": int(limit * 1000)}
    # The broker decides what is too large, not librdkafka: message, 64 headers of 8 KiB, key.
    largest = max(1_000_000, config.max_payload_bytes + 64 * 8192 + 65_536)
    return {"message.max.bytes": largest, **timeouts, **wanted}


def named(config: Config, problem: str) -> ValidationError:
    """`problem`, as librdkafka says it, as an error about the setting that it comes from."""
    further = config.kafka_config or {}
    guilty = "kafka_config" if further else "kafka_security_protocol"
    said = problem.lower()
    for setting, name in PROPERTIES.items():
        if (name in said or name.replace(".", " ") in said) and name not in further:
            guilty = setting
    return ValidationError(f"{guilty.upper()}: {problem}", field=guilty)


def refusal(config: Config) -> Callable[[Destination], str | None]:
    """Says why tasks must not go to a destination, or None.

    `kafka:///topic` is always allowed: where that goes is the operator's choice.
    """
    given = config.kafka_allowed_brokers
    if given is None and config.environment == "prod":
        given = config.kafka_brokers
    if given is None or "*" in given:
        return lambda _: None
    allowed = frozenset(normal(given))

    def why(destination: Destination) -> str | None:
        if destination.place.kind != "kafka":
            return None
        strange = [b for b in route(destination.address).brokers if b not in allowed]
        return f"KAFKA_ALLOWED_BROKERS does not allow {', '.join(strange)}" if strange else None

    return why
