"""Clients of a running service."""

from rebound.client.asynchronous import AsyncClient
from rebound.client.threaded import Client

__all__ = ["AsyncClient", "Client"]
