"""Settings: any text in them is a Config, or one line that names the setting."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from hypothesis import strategies as st

from rebound.domain.errors import ValidationError
from rebound.settings import SETTINGS, Config
from tests.fuzz.report import Row
from tests.fuzz.service import REBOUND, environment

SECRET = "hush-hush-hush"
WORDS = [
    "", " ", "0", "1", "-1", "+5", "5.0", "1e3", "nan", "inf", "9" * 30, "9" * 5000, "64KiB",
    "1 MiB", "1h30m", "250ms", "30d", "1y", "on", "off", "maybe", "json", "xml", "prod", "staging",
    "debug", "WARN", "localhost", "localhost:6379", ":8080", "[::1]:1", "[::1", "h:99999", "a b:1",
    "sqlite:///a.db", "sqlite://:memory:", "sqlite:", "sqlite:///\x00", "redis://h:1/2",
    f"rediss://u:{SECRET}@h", f"redis://u:{SECRET}@[", f"redis://:{SECRET}@h:x", "redis://h/99999",
    "redis://\u2100", "mysql://h", f"http://u:{SECRET}@h:1", f"socks5://u:{SECRET}@h:1", "http://[",
    "*", "a:1,b:2", "a:1,,b:2", ",", "400,4xx", "200", "4xx,", '{"a": "b"}', '{"acks": "0"}',
    f'{{"ssl.key.password": "{SECRET}"}}', "{", "[" * 100_000, '{"a":' * 20_000, '{"a": 1e999}',
    '{"delivery.timeout.ms": "x"}', '{"message.timeout.ms": 1e30}', "null", "[]", "plaintext",
    "sasl_ssl", "PLAIN", "SCRAM-SHA-256", "standalone", "sentinel", "cluster", "a\nb", "\x00",
    "\udcff", "é", "😀", "x" * 300, "x" * 100_000, "tcp://10.0.0.1:6379", "{a}", "../..", "%s",
    "\\", SECRET,
]  # fmt: skip
words = st.sampled_from(WORDS)
texts = words | st.text(max_size=20) | st.builds("{}{}".format, words, st.text(max_size=2))
names = st.sampled_from([*SETTINGS])
variables = st.dictionaries(
    st.one_of(
        names.map(str.upper),
        names.map(lambda name: f"REBOUND_{name.upper()}"),
        names.map(lambda name: f"REBOUND_{name.upper()}X"),
        st.sampled_from(["REBOUND_", "REBOUND_REDIS_CLUSTER_ADDR", "REDIS_SENTINEL_ADDRS"]),
    ),
    texts,
    max_size=4,
)
flags = st.dictionaries(names, st.none() | texts, max_size=2)


def check(env: Mapping[str, str], given: Mapping[str, str | None]) -> None:
    """A Config, or one error of one line that names a setting and shows no secret."""
    try:
        config = Config.for_service(env, **given)
    except ValidationError as error:
        text = " ".join(str(error).split())
        known = {*(name.upper() for name in SETTINGS), *env}
        assert any(name in text for name in known), text
        assert len(text) < 1_000, text
    else:
        text = f"{config!r} {config.store_shown} {config.store_kind} {config.address}"
        assert config.resolved_store_url
    secret = {n for n, v in {**env, **given}.items() if v and SECRET in v and not _hides(n, v)}
    assert SECRET not in text or secret, text


def _hides(name: str, value: str) -> bool:
    """True for a setting whose value, or a password in it, must not be shown."""
    setting = SETTINGS.get(name.removeprefix("REBOUND_").lower())
    url = name.upper().endswith("_URL") and f":{SECRET}@" in value
    return setting is not None and (setting.secret or url)


# -- real processes ----------------------------------------------------------------------------


def run(folder: Path, count: int, seed: int) -> Row:
    """`count` starts of `rebound serve`, each with a setting that is refused."""
    wrong = []
    for env in refused(random.Random(seed), count):
        done = subprocess.run(
            [*REBOUND, "serve", "--no-worker"], cwd=folder, env=environment(**env),
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        said = done.stderr.decode(errors="replace")
        one_line = said.startswith("rebound: ") and said.count("\n") == 1
        if done.returncode != 2 or done.stdout or not one_line:
            wrong.append(f"{done.returncode} {done.stdout!r} {said[-600:]!r} for {str(env)[:300]}")
    return Row("starts with a wrong setting: one line, exit code 2", count, wrong)


def refused(chance: random.Random, count: int) -> Iterator[Mapping[str, str]]:
    """Environments that have one wrong setting."""
    known = [word for word in WORDS if "\0" not in word and len(word) < 100_000]
    while count:
        env = {f"REBOUND_{chance.choice([*SETTINGS]).upper()}": chance.choice(known)}
        try:
            Config.for_service(env)
        except ValidationError:
            count -= 1
            yield env
