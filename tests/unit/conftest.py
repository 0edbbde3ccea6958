"""Unit tests are deterministic: property tests draw the same cases in every run."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("estiba", deadline=None, derandomize=True, database=None)
settings.load_profile("estiba")
