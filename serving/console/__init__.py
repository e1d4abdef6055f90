"""The gateway's own page."""
