"""Registers the simulated device while tests are collected: before any backward pass."""

import simulated  # noqa: F401
