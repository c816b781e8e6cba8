"""The settings of Redis as it runs in production: modes, and TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rebound import Config, ValidationError

SENTINEL = {"redis_mode": "sentinel", "redis_master_name": "m", "redis_sentinel_addrs": "a:1,b"}
CLUSTER = {"redis_mode": "cluster", "redis_cluster_addrs": "a:1, [::1]"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"redis_mode": "sentinel", "redis_master_name": "m"}, "SENTINEL_ADDRS: is needed in sent"),
        ({"redis_mode": "sentinel", "redis_sentinel_addrs": "a"}, "MASTER_NAME: is needed in sent"),
        ({"redis_mode": "cluster"}, "REDIS_CLUSTER_ADDRS: is needed in cluster mode"),
        ({"redis_master_name": "m"}, "REDIS_MASTER_NAME: needs REDIS_MODE sentinel"),
        ({"redis_cluster_addrs": "a"}, "REDIS_CLUSTER_ADDRS: needs REDIS_MODE cluster"),
        ({**SENTINEL, "redis_cluster_addrs": "a"}, "REDIS_CLUSTER_ADDRS: needs REDIS_MODE cluster"),
        ({"redis_tls_cert": __file__}, "REDIS_TLS_CERT: goes with REDIS_TLS_KEY"),
    ],
)
def test_settings_that_a_mode_lacks_or_does_not_know_stop_the_start(
    given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Config(**given)
    assert said in str(caught.value)


def test_where_redis_is_is_shown_without_secrets() -> None:
    secret = {"redis_password": "s3cret"}
    hidden = Config(**SENTINEL, redis_sentinel_password="s3cret", **secret)  # type: ignore[arg-type]
    assert hidden.store_shown == "redis m of the sentinels a:1, b:26379"
    assert "s3cret" not in repr(hidden)
    assert Config(**CLUSTER).store_shown == "redis cluster a:1, [::1]:6379"  # type: ignore[arg-type]


def test_files_of_tls_choose_tls_and_stand_beside_the_login(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    config = Config(redis_username="u", redis_password="p", redis_tls_ca=str(ca))
    assert config.resolved_store_url == "rediss://u:p@localhost:6379/0"
    assert Config(redis_tls="on").resolved_store_url.startswith("rediss:")
    assert Config(store_url="rediss://r", redis_tls_ca=str(ca)).store_shown == "redis r:6379/0"


def test_a_flag_that_names_one_server_beats_the_mode_of_the_environment() -> None:
    env = {name.upper(): value for name, value in SENTINEL.items()}
    for flags in ({"store_url": "redis://r"}, {"redis_addr": "r:6379"}):
        assert Config.for_service(env, **flags).resolved_store_url == "redis://r:6379/0"
