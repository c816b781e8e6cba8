"""Rebound inside web frameworks. Each module needs its framework; `rebound` itself needs none."""
