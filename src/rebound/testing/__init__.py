"""For tests of programs that use Rebound: days of retries in milliseconds.

pytest has the fixture `rebound_kit`; anything else says `with Kit() as kit:`.
"""

from rebound.testing.kit import Kit, Step
from rebound.testing.script import Answer
from rebound.testing.wire import Sent

__all__ = ["Answer", "Kit", "Sent", "Step"]
