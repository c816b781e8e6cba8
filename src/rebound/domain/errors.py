"""Every error that Rebound raises: one root; a docstring is the default message."""

from __future__ import annotations


class ReboundError(Exception):
    """Something went wrong in Rebound."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class ValidationError(ReboundError):
    """The task or setting is not valid."""

    def __init__(self, message: str | None = None, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        """Path of the offending field (`destination.url`), or None where no single one is."""


class InvalidBody(ReboundError):
    """The text is not JSON in UTF-8."""


class PayloadTooLarge(ValidationError):
    """The message is larger than MAX_PAYLOAD_BYTES."""


class DuplicateTask(ReboundError):
    """A task with this id and other content exists already."""


class NotFound(ReboundError):
    """No task with this id is known."""


class WrongState(ReboundError):
    """The task's state does not allow this."""


class TaskBusy(WrongState):
    """The task is being delivered right now; try again when the attempt has ended."""


class StoreUnavailable(ReboundError):
    """The store cannot be reached; nothing was confirmed. Repeat with the same id."""


class StoreFull(StoreUnavailable):
    """The store has no room for new tasks; those that it has are delivered on."""


class StoreUnusable(StoreUnavailable):
    """The store refuses this login, or the file is not usable; waiting will not help."""


class Closed(ReboundError):
    """This Rebound is not open: use `async with`, or call start(); after close() make a new one."""


class DeliveryError(ReboundError):
    """The attempt failed and will be retried.

    Raised by producers. `status` and `response` are what the receiver answered, `retry_after` is
    its wish in seconds from the end of the response. `after` are the seconds until the next
    attempt, in place of the policy's delay.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        status: int | None = None,
        response: str | None = None,
        retry_after: float | None = None,
        after: float | None = None,
        timed_out: bool = False,
    ) -> None:
        super().__init__(message or "the attempt failed")
        self.status = status
        self.response = response
        self.retry_after = retry_after
        self.after = after
        self.timed_out = timed_out


class Rejected(DeliveryError):
    """The destination refused the message for good: the main leg ends, without further attempts."""


class Deferred(DeliveryError):
    """The attempt did not take place; it is repeated after `retry_after` and not counted."""


class Abandoned(ReboundError):
    """The attempt cannot be stopped and may still succeed; its lease has to run out."""


class Reject(ReboundError):
    """The handler refuses the message for good."""


class Retry(DeliveryError):
    """The handler wants to be called again."""

    def __init__(self, message: str | None = None, *, after: float | None = None) -> None:
        """`after` 0-31536000 seconds, in place of the policy's delay. Raises ValidationError."""
        if after is not None and not (isinstance(after, int | float) and 0 <= after <= 31_536_000):
            raise ValidationError(f"Retry: after is {after!r}, must be 0 to 31536000 seconds")
        super().__init__(message or "the handler wants to be called again", after=after)
