"""Durable retries for webhooks, API calls and messages: embedded, or as an HTTP service."""

import logging

__version__ = "0.1.0"

from rebound.consuming.consumer import RetryingConsumer
from rebound.domain.attempt import Attempt, DeadLetter, DeadReason, Leg, Outcome, State
from rebound.domain.backoff import Backoff
from rebound.domain.destination import Base64, Destination, DestinationType
from rebound.domain.errors import (
    Closed,
    DuplicateTask,
    NotFound,
    PayloadTooLarge,
    ReboundError,
    Reject,
    Retry,
    StoreUnavailable,
    StoreUnusable,
    TaskBusy,
    ValidationError,
    WrongState,
)
from rebound.domain.record import Record
from rebound.domain.redelivery import RetryPolicy
from rebound.domain.task import Task
from rebound.embedded import Rebound
from rebound.ports import Event, Found
from rebound.settings import Config
from rebound.sync import SyncRebound

# A library leaves logging to the program; without this Python would print bare warnings itself.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "Attempt", "Backoff", "Base64", "Closed", "Config", "DeadLetter", "DeadReason", "Destination",
    "DestinationType", "DuplicateTask", "Event", "Found", "Leg", "NotFound", "Outcome",
    "PayloadTooLarge", "Rebound", "ReboundError", "Record", "Reject", "Retry", "RetryPolicy",
    "RetryingConsumer", "State", "StoreUnavailable", "StoreUnusable", "SyncRebound", "Task",
    "TaskBusy", "ValidationError", "WrongState",
]  # fmt: skip
