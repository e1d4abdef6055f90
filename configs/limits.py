"""Bounds that settings, checks and commands share; nothing is imported, so that the command line stays quick."""

from __future__ import annotations

MAX_RANK = 64
"""Largest rank of an adapter that is trained, evaluated and served."""
