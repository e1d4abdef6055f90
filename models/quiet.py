"""One switch for the libraries' own progress bars and chatter: Tidemill reports progress itself."""

from __future__ import annotations


def quiet() -> None:
    """Silence transformers' progress bars and all its messages below errors (for this process)."""
    import warnings

    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    # peft 0.21.2 asks transformers 5.23 for a name that is on its way out.
    warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated", category=FutureWarning)
