"""Engines behind the gateway."""
