"""Gateways that a test may kill."""

from __future__ import annotations

from support.gateway import start_gateway

__all__ = ["start_gateway"]
