"""The settings of the Django app; the rest needs a project, and is in tests/e2e."""

from __future__ import annotations

import pytest

from rebound import Config, Task, ValidationError
from rebound.frameworks.django.apps import configured
from rebound.service import work


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("sqlite:///x", "must be a dict, such as {'store_url': "),
        (None, "must be a dict"),
        ({"STORE_URL": "x"}, "'STORE_URL' is no setting; did you mean 'store_url'?"),
        ({"leese": 1}, "'leese' is no setting; did you mean 'lease'?"),
        ({7: 1}, "7 is no setting"),
        ({"lease": "soon"}, "LEASE: is 'soon', must be a duration from 1s to 1h"),
    ],
)
def test_wrong_settings_are_named(given: object, complaint: str) -> None:
    with pytest.raises(ValidationError) as caught:
        configured(given)
    assert str(caught.value).startswith(complaint)


def test_a_dict_or_a_config_may_be_given() -> None:
    assert configured({"lease": "2m", "on_event": None}).lease == 120
    assert configured({}) == Config()
    config = Config(store_url="sqlite://:memory:")
    assert configured(config) is config


def test_a_worker_refuses_two_handlers_of_one_name() -> None:
    def handler(task: Task) -> None: ...

    with pytest.raises(ValidationError, match="handler 'mail': is registered already"):
        work(Config(store_url="sqlite://:memory:"), [("mail", handler), ("mail", handler)])
