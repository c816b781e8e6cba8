"""Terms are known again by their text; what is accepted does not depend on whether they were."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import pytest
from msgspec.structs import replace

from rebound.accepting import Acceptance
from rebound.attempting import Policy
from rebound.domain import drafts, meaning, validation
from rebound.domain.backoff import Backoff
from rebound.domain.destination import Base64, Destination
from rebound.domain.errors import PayloadTooLarge, ValidationError
from rebound.domain.task import Task
from tests.unit.door import LIMIT, outcome, parse

AT = Destination(url="http://a.test/hook")
KAFKA = Destination(host="h", topic="t")
NOT_A_URL = Destination(url="nowhere")


def a_task(**fields: Any) -> Task:
    return Task(**{"source": "s", "destination": AT, "message_data": {"a": [1, "ü"]}} | fields)


def checked(task: Task) -> Task:
    return validation.check(task, max_payload=LIMIT)


@pytest.fixture
def accepting() -> Acceptance:
    return Acceptance(Policy(max_payload=LIMIT), checked)


# -- what they have in common ------------------------------------------------------------------


def test_tasks_that_differ_in_id_key_and_message_have_the_same_terms() -> None:
    one = drafts.of_python(a_task(id="a", message_key="k", message_data="x"))
    other = drafts.of_python(a_task())
    text = b'{"message_data": [], "destination": {"url": "http://a.test/hook"}, "source": "s"}'
    assert one.terms == other.terms == drafts.of_json(text).terms
    assert drafts.common(one.terms) is drafts.common(other.terms)


@pytest.mark.parametrize(
    "fields",
    [{"delay": 5}, {"lane": "x"}, {"source": "t"}, {"destination": KAFKA}, {"failures": 1}],
)
def test_whatever_else_they_differ_in_is_of_their_terms(fields: dict[str, Any]) -> None:
    assert drafts.of_python(a_task(**fields)).terms != drafts.of_python(a_task()).terms


def test_long_terms_are_not_kept() -> None:
    long = a_task(destination=Destination(url=AT.url, headers={"x": "y" * drafts.LONGEST}))
    terms = drafts.of_python(long).terms
    assert drafts.common(terms) == drafts.common(terms)
    assert drafts.common(terms) is not drafts.common(terms)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"base_delay": None}, {"base_delay": math.nan}),
        ({"client_id": "YWJj"}, {"client_id": b"abc"}),
        ({"max_retries": 1}, {"max_retries": True}),
        ({"id": "a"}, {"id": b"a"}),
        ({"message_key": "YWJj"}, {"message_key": b"abc"}),
        ({"message_data": [None]}, {"message_data": [math.nan]}),
    ],
)
def test_known_terms_let_nothing_through_that_json_has_no_word_for(
    good: dict[str, Any], bad: dict[str, Any]
) -> None:
    for _ in "ab":
        drafts.of_python(a_task(**good))
        with pytest.raises(ValidationError) as caught:
            drafts.of_python(a_task(**bad))
        assert [caught.value.field] == [*bad]


@pytest.mark.parametrize(
    "member", ['"attempts": []', '"state": null', '"lost": []', r'"\u0073tate": null']
)
def test_a_field_of_rebounds_own_is_refused_though_it_says_nothing(member: str) -> None:
    with pytest.raises(ValidationError, match="unknown field"):
        drafts.of_json(
            b'{"source": "s", "destination": {"url": "http://a.test"}, %s}' % member.encode()
        )


def test_a_member_of_an_enum_of_strings_is_the_string_that_it_equals() -> None:
    word = StrEnum("Word", {"HELLO": "aGVsbG8="}).HELLO
    draft = drafts.of_python(a_task(message_data=word, message_encoding="base64"))
    assert (type(draft.data), draft.data, draft.value) == (str, "aGVsbG8=", "aGVsbG8=")


def test_the_message_is_nobody_elses() -> None:
    message: dict[str, Any] = {"a": [1]}
    draft = drafts.of_python(a_task(message_data=message))
    message["a"].append(2)
    assert (draft.message, draft.value) == (b'{"a":[1]}', {"a": [1]})


# -- what becomes of them ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"id": "mine"},
        {"attempt": 3},
        {"message_data": ""},
        {"message_data": 'text "ü"'},
        {"message_data": 5},
        {"message_data": None},
        {"message_data": "YWJj", "message_encoding": "base64"},
        {"message_key": None},
        {"message_key": "k"},
        {"message_key": "ü"},
        {"message_key": Base64("AAE=")},
        {"destination": KAFKA, "dead_destination": AT},
        {"destination": Destination(url=AT.url, headers={"B": "ü", "A": "1"}, timeout=5)},
        {"dead_destination": Destination()},
        {"backoff": Backoff(jitter="full"), "delay": None},
        {"ttl": 5, "lane": "mine", "is_priority": True},
        {"failures": 5},
        {"failures": 9, "dead_destination": AT},
    ],
)
def test_a_submission_is_what_follows_from_the_whole_task(
    accepting: Acceptance, fields: dict[str, Any]
) -> None:
    given = a_task(**{"id": "t", "delay": 7} | fields)
    whole = checked(validation.from_python(given))
    for draft in (drafts.of_python(given), drafts.of_task(whole)) * 2:
        made = accepting.submission(draft)
        assert made.task == whole.accepted()
        assert validation.parse(made.body) == replace(whole, id="", attempt=0)
        assert made.digest == meaning.digest(whole)
        if whole.delay is not None:
            assert made.delay == whole.accepted().first_wait(0.5)


def test_what_is_done_to_one_task_is_not_done_to_others_of_its_terms(
    accepting: Acceptance,
) -> None:
    def given() -> Task:
        to = Destination(url=AT.url, headers={"A": "1"}, fatal_statuses=[404])
        return a_task(
            destination=to, backoff=Backoff(strategy="schedule", schedule=[1.0]), id="t",
            dead_destination=Destination(url=KAFKA.address, headers=[("a", "1")]),
        )  # fmt: skip

    expected = accepting.submission(drafts.of_python(given())).task
    for _ in "ab":
        handed_in = given()
        made = accepting.submission(drafts.of_python(handed_in)).task
        assert made == expected
        for task in (handed_in, made):
            assert task.destination.headers
            assert task.destination.fatal_statuses
            assert task.backoff
            assert task.backoff.schedule
            assert task.dead_destination
            assert task.dead_destination.headers
            for part in (
                task.destination.headers, task.destination.fatal_statuses, task.backoff.schedule,
                task.dead_destination.headers,
            ):  # fmt: skip
                part.clear()


def test_each_has_a_nonce_and_where_it_has_none_an_id_of_its_own(accepting: Acceptance) -> None:
    made = [accepting.submission(drafts.of_python(a_task())) for _ in range(100)]
    assert len({one.nonce for one in made}) == len({one.task.id for one in made}) == 100


def test_chance_and_a_wait_from_outside_count_each_time(accepting: Acceptance) -> None:
    chancy = drafts.of_python(a_task(backoff=Backoff(jitter="full")))
    assert len({accepting.submission(chancy).delay for _ in range(20)}) > 1
    assert accepting.submission(chancy, 3.5).delay == 3.5


@pytest.mark.parametrize(
    "fields",
    [
        {"destination": NOT_A_URL},
        {"destination": NOT_A_URL, "message_data": "x" * (LIMIT + 1)},
        {"message_data": "x" * (LIMIT + 1)},
        {"message_data": ["x" * LIMIT]},
        {"message_data": "x", "message_encoding": "base64"},
        {"message_data": {}, "message_encoding": "base64"},
        {"message_key": "x" * 1025},
        {"message_key": Base64("x")},
        {"message_key": "x" * 1025, "message_data": "x" * (LIMIT + 1)},
        {"backoff": Backoff(strategy="none"), "message_key": "x" * 1025},
    ],
)
def test_what_is_wrong_with_the_whole_is_said_whether_the_terms_are_known_or_not(
    accepting: Acceptance, fields: dict[str, Any]
) -> None:
    task = validation.from_python(a_task(**fields))
    for _ in "ab":
        said = outcome(accepting.submission, drafts.of_python(a_task(**fields)))
        assert said == outcome(checked, task)
        assert issubclass(said[0], ValidationError)


def test_a_text_is_as_long_as_what_is_sent_of_it_not_as_its_json(accepting: Acceptance) -> None:
    accepting.submission(drafts.of_python(a_task(message_data='"' * LIMIT)))
    with pytest.raises(PayloadTooLarge):
        accepting.submission(drafts.of_python(a_task(message_data='"' * (LIMIT + 1))))


def test_the_digest_stays_what_it_is_from_release_to_release() -> None:
    one = replace(parse(), id="t")
    other = replace(
        parse(
            message_data={"a": "ü"}, ttl=5, message_key={"base64": "AAE="},
            destination={"url": "http://a.test", "headers": {"A": "ü"}},
        ),
        id="t",
    )  # fmt: skip
    assert meaning.digest(one).hex() == "1bde7922583f7bc173bac66fda1c715c"
    assert meaning.digest(other).hex() == "9d44be6e7b16c9fe9666f55b17c47726"


def test_ten_thousand_terms_are_remembered_and_of_long_ones_fewer() -> None:
    asked: list[bytes] = []

    def find(terms: bytes) -> bytes:
        asked.append(terms)
        return terms

    known = drafts.by_terms(find)
    for terms in [b"%0100d" % n for n in range(10_000)] * 2:
        known(terms)
    assert len(asked) == 10_000
    for terms in [b"%01000d" % n for n in range(10_000)] * 2:
        known(terms)
    assert len(asked) == 30_000
