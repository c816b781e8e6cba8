"""What schemathesis cannot know: how the strings of a `format` are made, and what 5.0 is."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import strategies as st

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
hosts = (
    st.lists(labels, min_size=1, max_size=3).map(lambda parts: ".".join([*parts, "test"]))
    | st.sampled_from(["example.com", "EXAMPLE.com.", "bücher.test", "[fd00::1]", "a_b.test"])
)  # fmt: skip
addresses = st.builds(
    "{}://{}{}{}{}".format,
    st.sampled_from(["http", "https", "HTTPS"]),
    st.sampled_from(["", "", "user:password@"]),
    hosts,
    st.just("") | st.integers(1, 65535).map(":{}".format),
    st.from_regex(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]{0,12}){0,3}(\?[a-z=&%?]{0,9})?(#[a-z]{0,3})?",
                  fullmatch=True),
)  # fmt: skip
ports = st.just("") | st.integers(1, 65535).map(":{}".format)
names = hosts.filter(str.isascii) | st.just("10.0.0.1")
brokers = st.lists(
    st.builds("{}{}".format, names, ports),
    min_size=1,
    max_size=3,
).map(",".join)
topics = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,9}", fullmatch=True)
schemathesis.openapi.format("iri", addresses)
schemathesis.openapi.format("kafka-brokers", names | st.builds("{},{}".format, brokers, names))
schemathesis.openapi.format(
    "kafka-url", st.builds("kafka://{}/{}".format, st.just("") | brokers, topics)
)
schemathesis.openapi.format("cursor", st.integers(0, 10**18 - 1).map(str))
schemathesis.openapi.format(
    "idempotency-key", st.from_regex(r'[!#-~][!-~]{0,254}|"[!#-\[\]-~]{1,255}"', fullmatch=True)
)


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """5.0 as 5: to JSON Schema both are integers, to Rebound only the second is."""
    match body:
        case float() if body.is_integer() and abs(body) < 2**53:
            return int(body)
        case list():
            return [map_body(context, one) for one in body]
        case dict():
            return {name: map_body(context, one) for name, one in body.items()}
    return body
