"""Faults under load: `python -m chaos` breaks things and accounts for every accepted task."""
