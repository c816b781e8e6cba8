"""What can be set, from the environment, flags or a program."""

from rebound.settings.config import SETTINGS, Config

__all__ = ["SETTINGS", "Config"]
