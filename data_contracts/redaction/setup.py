"""A redactor as the configuration wants it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from data_contracts.redaction.ner import NerBackend, PresidioNer
from data_contracts.redaction.policy import RedactionPolicy
from data_contracts.redaction.session import Redactor

_LOG = logging.getLogger("tidemill.redaction")


class RedactionSettings(Protocol):
    """What is read of the configuration's section `redaction`."""

    @property
    def actions(self) -> Mapping[str, Any]:
        """Entity to action."""

    @property
    def ner(self) -> str:
        """`off` or `presidio`."""

    @property
    def ner_model(self) -> str:
        """spaCy model."""

    @property
    def ner_language(self) -> str:
        """Its language."""


def redactor_for(settings: RedactionSettings, key: bytes | None = None, *, ner: NerBackend | None = None) -> Redactor:
    """The redactor of this installation; what a policy lets stand is said in the log.

    Args:
        settings: `config.redaction`.
        key: the installation's secret.
        ner: a backend instead of the configured one.

    Raises:
        ValueError: the policy pseudonymises and there is no key.
        ConfigError: the configured backend or its model is not installed.
    """
    policy = RedactionPolicy(dict(settings.actions))
    for warning in policy.warnings:
        _LOG.warning(warning)
    if ner is None and settings.ner == "presidio":
        ner = PresidioNer(settings.ner_model, settings.ner_language)
    return Redactor(key, policy=policy, ner=ner)
