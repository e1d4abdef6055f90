"""One switch for the libraries' own progress bars and chatter: Tidemill reports progress itself."""

from __future__ import annotations


def quiet() -> None:
    """Silence transformers' progress bars and all its messages below errors (for this process)."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
