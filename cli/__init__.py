"""The human's hand: the `tidemill` command."""
