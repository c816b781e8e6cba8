"""What went wrong with an HTTP attempt, in one short line that holds nothing secret.

aiohttp's own messages hold the whole URL and pieces of headers, so none is passed on as it is.
"""

from __future__ import annotations

import errno
import os
import re
import ssl

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from rebound.domain.errors import DeliveryError, Rejected, ValidationError

UNSENDABLE = "the destination is not a URL that can be sent to"
_QUOTED = re.compile("[:\\n\"]| b?'")
"""Where a parser's message begins to quote what was received."""


def too_late(limit: float) -> DeliveryError:
    """The time limit of `limit` seconds was over first."""
    return DeliveryError(f"no complete response within {limit:g} s", timed_out=True)


def explained(error: Exception) -> DeliveryError:
    """DeliveryError, or Rejected where a further attempt would fail likewise."""
    match error:
        case DeliveryError():
            return error
        case ValidationError():
            return Rejected(str(error))
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return Rejected(UNSENDABLE)
        case aiohttp.ClientHttpProxyError():
            return DeliveryError(f"proxy: HTTP {error.status}")
        case aiohttp.ClientResponseError() | HttpProcessingError():
            why = _QUOTED.split(error.message, maxsplit=1)[0].strip()[:100]
            return DeliveryError(f"invalid HTTP response: {why or 'malformed'}")
        case aiohttp.ClientPayloadError():
            return DeliveryError("the response broke off or is malformed")
        case aiohttp.ClientConnectionError() | OSError():
            return _disconnected(error)
    return DeliveryError(f"cannot send: {type(error).__name__}")


def never_sent(error: Exception) -> bool:
    """True where aiohttp found the connection closed before it had written the request."""
    gone = aiohttp.ClientConnectionResetError
    return isinstance(error, gone) or isinstance(error.__cause__, gone)


def _disconnected(error: Exception) -> DeliveryError:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return DeliveryError(f"cannot resolve host {error.host}")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return DeliveryError("connection closed without a response")
    if never_sent(error):
        return DeliveryError("connection closed while sending")
    if tls := _tls_error(error):
        return DeliveryError(f"TLS: {tls}")
    where = "proxy: " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
    number = error.errno if isinstance(error, OSError) else None
    why = os.strerror(number).lower() if number else "connection failed"
    late = number == errno.ETIMEDOUT or isinstance(error, TimeoutError)
    return DeliveryError(where + why, timed_out=late)


def _tls_error(error: Exception) -> str | None:
    inner = (getattr(error, name, None) for name in ("certificate_error", "os_error"))
    chain = (*inner, error.__cause__, error)
    found = next((each for each in chain if isinstance(each, ssl.SSLError)), None)
    if found is None:
        return None
    if isinstance(found, ssl.SSLCertVerificationError):
        return found.verify_message
    return (found.reason or "handshake failed").replace("_", " ").lower()
