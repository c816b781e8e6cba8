"""Fixtures for pytest. Rebound itself is imported when the first test asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rebound import Config
    from rebound.testing import Kit


@pytest.fixture
def rebound_config() -> Config:
    """The settings of `rebound_kit`; a conftest.py may say others."""
    from rebound import Config

    return Config()


@pytest.fixture
def rebound_kit(rebound_config: Config) -> Iterator[Kit]:
    """A `rebound.testing.Kit`: an empty store, a clock that stands, destinations that say 200."""
    from rebound.testing import Kit

    with Kit(rebound_config) as kit:
        yield kit
