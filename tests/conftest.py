"""Fixtures that any test may ask for."""

from tests.support.ministack import ministack

__all__ = ["ministack"]
