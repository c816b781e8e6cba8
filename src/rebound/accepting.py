"""How a draft becomes a submission: checked, with an id, a first wait, a body and a digest."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from random import random
from typing import TypeVar

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from rebound.attempting import Policy
from rebound.domain import drafts, meaning
from rebound.domain.destination import Destination
from rebound.domain.drafts import Draft
from rebound.domain.errors import ValidationError
from rebound.domain.task import Task
from rebound.ids import uuid7
from rebound.ports import Submission

To = TypeVar("To", Destination, Destination | None)
_encode = msgspec.json.Encoder().encode


class Terms(Struct, frozen=True):
    """Terms that were checked, and what follows from them."""

    task: Task
    """Accepted, but for id, key and message."""
    wait: float | None
    """Seconds until it is first due, where that is no matter of chance."""
    body: bytes
    """Of a submission, up to key and message."""
    meaning: bytes
    """Their part of the digest."""
    queue: str
    is_text: bool
    """The message is sent as it is, not decoded."""
    shares: bool
    """The task has dicts or lists in it, which whoever gets the task could change."""


class Acceptance:
    """Makes submissions of drafts. `check` raises for a task that is not valid."""

    def __init__(self, policy: Policy, check: Callable[[Task], Task]) -> None:
        self._policy = policy
        self._check = check
        self._terms = drafts.by_terms(self._checked)
        self._instance = f"{os.urandom(6).hex()}."
        self._calls = count()

    def submission(self, draft: Draft, wait: float | None = None) -> Submission:
        """The draft on its way into the store, first due in `wait` seconds if that is given.

        Raises ValidationError or PayloadTooLarge.
        """
        terms = self._known(draft)
        id_, key, message = draft.id or uuid7(), draft.key, draft.message
        task = replace(terms.task, id=id_, message_key=key, message_data=draft.data)
        if terms.shares:
            task = _unshared(task)
        if wait is None:
            wait = terms.wait
        if wait is None:
            wait = task.first_wait(random(), self._policy.strategies)
        own_key = b"" if key is UNSET else b',"message_key":%b' % _encode(key)
        return Submission(
            task,
            wait,
            b'%b%b,"message_data":%b}' % (terms.body, own_key, message),
            meaning.of_whole(terms.meaning, id_ if key is UNSET else key, message),
            f"{self._instance}{next(self._calls):x}",
            terms.queue,
        )

    def _known(self, draft: Draft) -> Terms:
        """The draft's terms, if the whole of it is valid."""
        try:
            terms = self._terms(draft.terms)
        except ValidationError:
            self._check(draft.task())  # raises what is wrong first
            raise
        # JSON is no shorter than what is sent of it.
        short = len(draft.message) <= self._policy.max_payload
        if not (short and terms.is_text and draft.key is UNSET):
            self._check(draft.task())
        return terms

    def _checked(self, text: bytes) -> Terms:
        common = drafts.common(text)
        task = self._check(common)
        if task is not common or task.attempt:
            text = _encode(replace(task, attempt=0))
        accepted = task.accepted()
        by_chance = task.delay is None
        return Terms(
            accepted,
            None if by_chance else accepted.first_wait(0.0, self._policy.strategies),
            text[:-1],
            meaning.of_terms(task),
            accepted.queue,
            task.message_encoding == "text",
            _shares(task),
        )


def _shares(task: Task) -> bool:
    to, dead, backoff = task.destination, task.dead_destination, task.backoff
    return (
        to is not _own(to)
        or dead is not _own(dead)
        or (backoff is not None and backoff.schedule is not None)
    )


def _unshared(task: Task) -> Task:
    """The task with dicts and lists of its own."""
    backoff = task.backoff
    if backoff is not None and backoff.schedule is not None:
        backoff = replace(backoff, schedule=backoff.schedule.copy())
    to, dead = _own(task.destination), _own(task.dead_destination)
    return replace(task, destination=to, dead_destination=dead, backoff=backoff)


def _own(to: To) -> To:
    if to is None or (to.headers is None and to.fatal_statuses is None):
        return to
    headers, fatal = to.headers, to.fatal_statuses
    return replace(
        to,
        headers=None if headers is None else headers.copy(),
        fatal_statuses=None if fatal is None else fatal.copy(),
    )
