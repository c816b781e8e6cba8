"""Settings: every way to say one, and one clear line for every wrong one."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any, cast

import pytest

from rebound.domain.errors import ValidationError
from rebound.settings import SETTINGS, Config, access, table

KEY, OTHER = "s3cret-key-no-one", "s3cret-key-no-two"


def refusal(**given: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Config(**given)
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_page_of_all_settings_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text() == table.page(), "run: make docs"


def test_the_page_has_a_row_for_each_setting_with_what_its_error_says() -> None:
    rows = [line.split(" | ") for line in table.page().splitlines() if line.startswith("| `")]
    assert [row[0] for row in rows] == [f"| `{name.upper()}`" for name in SETTINGS]
    lease = next(row for row in rows if "LEASE" in row[0])
    assert lease[1:4] == ["`--lease`", "`1m`", "a duration from 1s to 1h"]
    assert lease[3] in str(refusal(lease="2h"))
    assert all(len(row) == 5 for row in rows)


def test_without_anything_every_setting_has_its_documented_default() -> None:
    config = Config()
    assert config.address == ("127.0.0.1", 8080)
    assert config.http_port == 8080
    assert (config.store_kind, config.sqlite_path) == ("sqlite", "rebound.db")
    assert config.resolved_store_url == "sqlite:///rebound.db"
    assert config.kafka_brokers == ("localhost:9092",)
    assert (config.poll_interval, config.lease, config.shutdown_grace) == (1.0, 60.0, 25.0)
    assert (config.concurrency, config.lane_concurrency, config.pool_size) == (1024, 100, 64)
    assert (config.max_payload_bytes, config.max_batch_bytes) == (1_048_576, 16_777_216)
    assert (config.retention_succeeded, config.dedup_window) == (3600.0, 86_400.0)
    assert (config.retention_dead, config.dead_letter_ttl) == (2_592_000.0, 604_800.0)
    assert (config.dedup_max, config.retry_after_max) == (1_000_000, 86_400.0)
    assert (config.fatal_statuses, config.api_keys, config.call_over_http) == ((), (), False)
    assert (config.log_level, config.log_format, config.environment) == ("info", "text", "dev")


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("lease", "1h", 3600.0),
        ("lease", 5, 5.0),
        ("poll_interval", "250ms", 0.25),
        ("dead_letter_ttl", "1h30m", 5400.0),
        ("concurrency", " 12 ", 12),
        ("max_payload_bytes", "64KiB", 65_536),
        ("fatal_statuses", "400, 404,4XX", (400, 404, "4xx")),
        ("fatal_statuses", [410, "5xx"], (410, "5xx")),
        ("kafka_brokers", "a:1, b", ("a:1", "b")),
        ("kafka_brokers", ["a:1"], ("a:1",)),
        ("call_over_http", "on", True),
        ("log_level", "WARN", "warning"),
        ("environment", "production", "prod"),
        ("environment", "staging", "prod"),
        ("api_keys", "", ()),
        ("api_keys", [], ()),
        ("api_keys", f"{KEY}, {OTHER},", (KEY, OTHER)),
        ("api_keys_submit", [KEY], (KEY,)),
        ("auth", "OFF", "off"),
        ("auth", "none", "off"),
        ("lease", None, 60.0),
        ("lease", " ", 60.0),
    ],
)
def test_a_setting_is_read_from_what_people_write(name: str, given: Any, kept: Any) -> None:
    config = Config(**{name: given})
    assert getattr(config, name) == kept


@pytest.mark.parametrize(
    ("name", "given", "allowed"),
    [
        ("http_port", 65_536, "from 0 to 65535"),
        ("http_port", "80a", "from 0 to 65535"),
        ("redis_port", 0, "from 1 to 65535"),
        ("lease", "999ms", "from 1s to 1h"),
        ("lease", "2h", "from 1s to 1h"),
        ("lease", "soon", "written like 250ms"),
        ("lease", math.nan, "from 1s to 1h"),
        ("lease", math.inf, "from 1s to 1h"),
        ("lease", True, "from 1s to 1h"),
        ("poll_interval", 0.001, "from 10ms"),
        ("concurrency", 0, "from 1"),
        ("concurrency", 2.0, "from 1"),
        ("concurrency", "1e3", "from 1"),
        ("max_payload_bytes", "1GB", "64KiB"),
        ("redis_mode", "magic", "standalone, sentinel, cluster"),
        ("redis_sentinel_addrs", "a:1,b:x", "host:port"),
        ("redis_wait_replicas", -1, "from 0"),
        ("redis_tls", "perhaps", "on, off"),
        ("redis_tls_ca", "/nowhere/ca.pem", "must be a file"),
        ("redis_tls_ca", "x" * 5_000, "must be a file"),
        ("log_level", "loud", "debug, info, warn, warning, error"),
        ("log_format", "xml", "json, text"),
        ("environment", "moon", "dev, prod, production, staging"),
        ("call_over_http", "perhaps", "on or off"),
        ("fatal_statuses", "200", "from 300 to 599"),
        ("fatal_statuses", "2xx", "from 300 to 599"),
        ("kafka_brokers", "a:70000", "host:port"),
        ("store_url", "mysql://db", "sqlite:///"),
        ("store_url", "sqlite://rebound.db", "sqlite:///"),
        ("store_url", "sqlite:///", "sqlite:///"),
        ("store_url", "rebound.db", "sqlite:///"),
        ("store_url", "redis://h/x", "redis://"),
        ("redis_addr", "h:p", "host:port"),
        ("http_addr", "a b:1", "host:port"),
        ("namespace", "a{b}", "letters"),
        ("http_proxy_url", "socks5://h:1", "http://"),
        ("auth", "on", "must be one of off"),
        ("rate_limit_per_key", 0, "from 1"),
        ("rate_limit_per_key", "0.5", "from 1"),
        ("max_connections", 0, "from 1"),
    ],
)
def test_a_wrong_value_is_one_line_with_variable_value_and_what_is_allowed(
    name: str, given: Any, allowed: str
) -> None:
    error = refusal(**{name: given})
    assert error.field == name
    assert str(error).startswith(f"{name.upper()}: is ")
    assert allowed in str(error)


@pytest.mark.parametrize("name", ["api_keys", "api_keys_submit"])
@pytest.mark.parametrize(
    "given",
    ["fifteen-letters", "x" * 256, f"{KEY},short", "a key with spaces", "s3cret-ключ-s3cret",
     [f"{KEY},{OTHER}"], ["a\nkey-with-a-line-feed"], 5, [5]],
)  # fmt: skip
def test_a_weak_or_malformed_key_is_refused_and_not_shown(name: str, given: Any) -> None:
    error = refusal(**{name: given})
    assert str(error) == (
        f"{name.upper()}: each must be 16 to 255 visible ASCII characters and no comma;"
        " several with commas"
    )


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"auth": "off", "api_keys": KEY}, "AUTH: is 'off', but API_KEYS says otherwise"),
        ({"auth": "off", "api_keys_submit": KEY}, "but API_KEYS_SUBMIT says otherwise"),
        ({"api_keys": f"{OTHER},{KEY}", "api_keys_submit": KEY}, "API_KEYS has as well"),
        ({"api_keys": " , "}, "API_KEYS: each must be"),
        ({"allowed_hosts": ","}, "ALLOWED_HOSTS: is ',', must be hosts"),
        ({"rate_limit_per_key": 5}, "RATE_LIMIT_PER_KEY: needs API_KEYS"),
    ],
)
def test_settings_of_access_that_contradict_each_other_stop_the_start(
    given: dict[str, Any], problem: str
) -> None:
    error = refusal(**given)
    assert problem in str(error)
    assert KEY not in str(error)


def test_keys_are_shown_nowhere() -> None:
    shown = repr(Config(api_keys=KEY, api_keys_submit=OTHER))
    assert KEY not in shown
    assert OTHER not in shown
    assert "api_keys='***'" in shown


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"http_host": "0.0.0.0"}, True),
        ({"http_addr": "0.0.0.0:80"}, True),
        ({"http_host": "::"}, True),
        ({"http_host": "10.0.0.1"}, True),
        ({"http_host": "localhost.evil.test"}, True),
        ({"http_host": "0.0.0.0", "environment": "staging"}, True),
        ({"http_host": "0.0.0.0", "environment": "dev"}, False),
        ({"http_host": "0.0.0.0", "auth": "off"}, False),
        ({"http_host": "0.0.0.0", "api_keys": KEY}, False),
        ({"http_host": "0.0.0.0", "api_keys_submit": KEY}, False),
        ({}, False),
        ({"http_host": "localhost"}, False),
        ({"http_host": "127.9.9.9"}, False),
        ({"http_host": "::1"}, False),
    ],
)
def test_in_production_other_hosts_need_keys(given: dict[str, Any], refused: bool) -> None:
    config = Config(**{"environment": "prod", **given})
    if not refused:
        access.require_keys(config)
        return
    with pytest.raises(ValidationError, match=r"^API_KEYS: are needed .* AUTH=off") as caught:
        access.require_keys(config)
    assert caught.value.field == "api_keys"


def test_the_key_of_the_command_lines_calls_is_no_misspelt_setting() -> None:
    assert Config.for_service({"REBOUND_API_KEY": KEY}).api_keys == ()
    with pytest.raises(ValidationError, match="did you mean REBOUND_API_KEYS"):
        Config.for_service({"REBOUND_APIKEYS": KEY})


def test_flags_say_who_may_call_whatever_the_environment_says() -> None:
    assert Config.for_service({"API_KEYS": KEY}, auth="off").api_keys == ()
    assert Config.for_service({"AUTH": "off"}, api_keys=KEY).api_keys == (KEY,)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///tasks.db", "tasks.db"),
        ("sqlite:////var/lib/tasks.db", "/var/lib/tasks.db"),
        ("sqlite://:memory:", ":memory:"),
        ("sqlite:///:memory:", ":memory:"),
    ],
)
def test_an_sqlite_url_names_a_file(url: str, path: str) -> None:
    config = Config(store_url=url)
    assert (config.store_kind, config.sqlite_path) == ("sqlite", path)
    assert config.store_shown == f"sqlite {path}"


def test_a_password_that_is_no_text_is_refused_and_not_shown() -> None:
    with pytest.raises(ValidationError, match=r"^REDIS_PASSWORD: must be text in UTF-8$"):
        Config(redis_password=b"s3cret\xff".decode(errors="surrogateescape"))


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"redis_addr": "localhost:6379"}, "redis://localhost:6379/0"),
        ({"redis_addr": ":7000"}, "redis://localhost:7000/0"),
        ({"redis_addr": "[::1]:7000"}, "redis://[::1]:7000/0"),
        ({"redis_host": "r"}, "redis://r:6379/0"),
        ({"redis_port": "7"}, "redis://localhost:7/0"),
        ({"redis_host": "r", "redis_port": 7, "redis_addr": "r:7"}, "redis://r:7/0"),
        ({"redis_db": 0}, "redis://localhost:6379/0"),
        ({"redis_db": "3"}, "redis://localhost:6379/3"),
        ({"redis_mode": "standalone"}, "redis://localhost:6379/0"),
        ({"redis_pool_size": 8}, "redis://localhost:6379/0"),
        ({"redis_password": "p@ss/word"}, "redis://:p%40ss%2Fword@localhost:6379/0"),
        ({"store_url": "redis://r"}, "redis://r:6379/0"),
        ({"store_url": "redis://r", "redis_password": "p"}, "redis://:p@r:6379/0"),
        ({"store_url": "redis://r", "redis_db": 2}, "redis://r:6379/2"),
        ({"store_url": "redis://r/2", "redis_addr": "r:6379"}, "redis://r:6379/2"),
        ({"store_url": "rediss://u:p@r:1/2?a=b"}, "rediss://u:p@r:1/2?a=b"),
    ],
)
def test_any_redis_setting_chooses_redis(given: dict[str, Any], url: str) -> None:
    config = Config(**given)
    assert config.store_kind == "redis"
    assert config.resolved_store_url == url
    assert "sqlite" not in config.store_shown


@pytest.mark.parametrize(
    "given",
    [
        {"store_url": "sqlite:///a.db", "redis_addr": "localhost:6379"},
        {"store_url": "sqlite:///a.db", "redis_db": 0},
        {"store_url": "sqlite:///a.db", "redis_password": "p"},
        {"store_url": "redis://a", "redis_addr": "b:6379"},
        {"store_url": "redis://a", "redis_addr": "a:6380"},
        {"store_url": "redis://a/1", "redis_db": 2},
        {"store_url": "redis://:p@a", "redis_password": "q"},
        {"redis_addr": "a:1", "redis_port": 2},
        {"redis_addr": "a:1", "redis_host": "b"},
        {"store_url": "redis://a", "redis_tls": "on"},
        {"store_url": "redis://a", "redis_tls_ca": __file__},
        {"redis_tls": "off", "redis_tls_ca": __file__},
        {"store_url": "redis://u:p@a", "redis_username": "v"},
        {"redis_mode": "cluster", "redis_cluster_addrs": "a:1", "redis_addr": "a:1"},
        {"redis_mode": "cluster", "redis_cluster_addrs": "a:1", "redis_db": 1},
        {"redis_mode": "cluster", "redis_cluster_addrs": "a:1", "store_url": "redis://a"},
        {"http_addr": ":80", "http_port": 8080},
    ],
)
def test_settings_that_contradict_each_other_stop_the_start(given: dict[str, Any]) -> None:
    assert "says otherwise" in str(refusal(**given))


def test_an_address_in_one_is_folded_in() -> None:
    assert Config(http_addr=":9000").address == ("127.0.0.1", 9000)
    assert Config(http_addr=":9000", http_host="0.0.0.0").address == ("0.0.0.0", 9000)
    assert Config(http_addr="example.org:9000", http_port=9000).address == ("example.org", 9000)
    assert Config(http_addr="[::1]:9000").address == ("::1", 9000)
    assert Config(http_port=0).address == ("127.0.0.1", 0)


@pytest.mark.parametrize(
    "given",
    [
        {"redis_password": "s3cret"},
        {"store_url": "redis://user:s3cret@host:6379/0"},
        {"store_url": "redis://host:6379/0?password=s3cret"},
        {"http_proxy_url": "http://user:s3cret@proxy:3128"},
    ],
)
def test_secrets_are_in_no_repr(given: dict[str, Any]) -> None:
    config = Config(**given)
    assert "s3cret" not in repr(config)
    assert "s3cret" not in config.store_shown


@pytest.mark.parametrize(
    "given",
    [
        {"store_url": "redis://user:s3cret@host:port"},
        {"store_url": "redis://:s3cret"},
        {"store_url": "mongodb://user:s3cret@host"},
        {"store_url": "user:s3cret@host"},
        {"http_proxy_url": "ftp://user:s3cret@host"},
        {"store_url": "redis://:s3cret@a/1", "redis_db": 2},
        {"store_url": "redis://:other@a/1", "redis_password": "s3cret"},
        {"redis_addr": "redis://:s3cret@host"},
    ],
)
def test_secrets_are_in_no_error(given: dict[str, Any]) -> None:
    assert "s3cret" not in str(refusal(**given))


def test_a_config_cannot_be_changed_but_copied() -> None:
    config = Config(redis_addr="r:1", http_addr=":9")
    with pytest.raises(FrozenInstanceError):
        config.lease = 5.0
    assert replace(config, lease="5s").lease == 5.0
    assert replace(Config(), http_port=0).store_kind == "sqlite"


def test_prod_logs_json_unless_told_otherwise() -> None:
    assert Config(environment="prod").log_format == "json"
    assert Config(environment="prod", log_format="text").log_format == "text"


def test_strategies_of_the_program_come_beside_the_built_in_ones() -> None:
    config = Config(strategies={"slow": lambda backoff, base, k: 100.0})
    assert {"exponential", "slow"} <= set(config.all_strategies)
    assert refusal(strategies={"linear": print}).field == "strategies"
    assert refusal(strategies={"mine": 5}).field == "strategies"
    assert refusal(strategies=5).field == "strategies"


def test_an_embedded_program_reads_only_prefixed_variables() -> None:
    env = {"REBOUND_LEASE": "5m", "REDIS_ADDR": "r:1", "REBOUND_LOG_LEVEL": "", "LEASE": "9s"}
    config = Config.from_env(env=env)
    assert (config.lease, config.store_kind, config.log_level) == (300.0, "sqlite", "info")
    assert Config.from_env(prefix="", env=env).store_kind == "redis"
    assert Config.from_env(prefix="APP_", env={"APP_LEASE": "2s"}).lease == 2.0


def test_a_service_prefers_flags_then_prefixed_then_bare_variables() -> None:
    env = {"REBOUND_LEASE": "5m", "LEASE": "9s", "CONCURRENCY": "7", "POLL_INTERVAL": "2s"}
    config = Config.for_service(env, poll_interval="3s", http_port=None)
    assert (config.lease, config.concurrency, config.poll_interval) == (300.0, 7, 3.0)


def test_an_empty_variable_counts_as_not_set() -> None:
    env = {"REBOUND_STORE_URL": "", "STORE_URL": "sqlite:///b.db", "REDIS_ADDR": " "}
    assert Config.for_service(env).sqlite_path == "b.db"


def test_a_flag_wins_over_what_contradicts_it_under_another_name() -> None:
    redis = {"REDIS_ADDR": "r:1", "REDIS_PASSWORD": "p"}
    assert Config.for_service(redis, store_url="sqlite:///x.db").store_kind == "sqlite"
    url = Config.for_service(redis, store_url="redis://other/4").resolved_store_url
    assert url == "redis://:p@other:6379/4"
    flagged = Config.for_service({"STORE_URL": "sqlite:///x.db"}, redis_addr="r:2")
    assert flagged.resolved_store_url == "redis://r:2/0"
    assert Config.for_service({"HTTP_ADDR": ":9"}, http_port="8").address == ("127.0.0.1", 8)
    assert Config.for_service({"HTTP_PORT": "9"}, http_addr=":8").address == ("127.0.0.1", 8)


def test_the_variables_of_a_container_link_are_no_settings() -> None:
    env = {"REDIS_PORT": "tcp://10.0.0.1:6379", "HTTP_PORT": "tcp://10.0.0.2:80"}
    config = Config.for_service(env)
    assert (config.store_kind, config.http_port) == ("sqlite", 8080)


def test_every_setting_is_described_in_one_line() -> None:
    for setting in SETTINGS.values():
        assert setting.description
        assert "\n" not in setting.description


def test_a_misspelt_variable_of_ours_is_named_with_the_right_one() -> None:
    with pytest.raises(ValidationError, match="did you mean REBOUND_CONCURRENCY"):
        Config.for_service({"REBOUND_CONCURENCY": "5"})
    assert Config.for_service({"REBOUND_HOME": "/x", "CONCURENCY": "5"}).concurrency == 1024


def test_a_secret_keeps_its_spaces() -> None:
    config = Config.for_service({"REDIS_ADDR": "r:1", "REDIS_PASSWORD": " pw "})
    assert config.redis_password == " pw "


def test_two_hosts_that_differ_are_a_contradiction() -> None:
    with pytest.raises(ValidationError, match="HTTP_HOST says otherwise"):
        Config(http_addr="0.0.0.0:9", http_host="::1")


def test_the_callers_own_client_beside_an_address_is_a_contradiction() -> None:
    client = cast("Any", object())
    for other in ({"redis_addr": "r:1"}, {"store_url": "redis://r/0"}):
        with pytest.raises(ValidationError, match="give only one of them"):
            Config(redis=client, **other)  # type: ignore[arg-type]
