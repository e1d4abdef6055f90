"""Every exception Tidemill raises on purpose, in one place.

An error says what was expected, what was found, where, and what to do. The exit codes of the
command line are the `exit_code` of the class.
"""

from __future__ import annotations


class TidemillError(Exception):
    """Base of all errors a user can cause or mend.

    Args:
        message: one sentence saying what went wrong.
        where: file, field, line, URL or id.
        expected: what would have been accepted.
        found: what was there instead.
        fix: what to do about it.
    """

    exit_code = 1
    code = "tidemill_error"

    def __init__(
        self,
        message: str,
        *,
        where: object = None,
        expected: object = None,
        found: object = None,
        fix: str | None = None,
    ) -> None:
        self.message = message
        self.where = None if where is None else str(where)
        self.expected = None if expected is None else str(expected)
        self.found = None if found is None else str(found)
        self.fix = fix
        super().__init__(self.__str__())

    def __str__(self) -> str:
        parts = [self.message]
        for label, value in (
            ("where", self.where),
            ("expected", self.expected),
            ("found", self.found),
            ("fix", self.fix),
        ):
            if value is not None:
                parts.append(f"{label}: {value}")
        return " | ".join(parts)

    def as_dict(self) -> dict[str, str | None]:
        """The same facts as a JSON-ready mapping (for `--json` and the HTTP error body)."""
        return {
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "expected": self.expected,
            "found": self.found,
            "fix": self.fix,
        }


class ConfigError(TidemillError):
    """A configuration file or value that does not validate."""

    exit_code = 2
    code = "config_invalid"


class InputError(TidemillError):
    """A record from outside that cannot be accepted (HTTP 400/422, a bad line in a file)."""

    exit_code = 3
    code = "invalid_input"


class NotFoundError(TidemillError):
    """Something named does not exist."""

    exit_code = 4
    code = "not_found"


class ModelUnavailableError(TidemillError):
    """A base model or embedder is neither cached nor reachable."""

    exit_code = 5
    code = "model_unavailable"


class AdapterRejectedError(TidemillError):
    """An adapter whose files, digest, base, rank or values did not pass the checks before loading."""

    exit_code = 6
    code = "adapter_rejected"


class ContractError(TidemillError):
    """A data contract that is malformed or holds a rule that cannot be compiled."""

    exit_code = 7
    code = "contract_invalid"


class SnapshotError(TidemillError):
    """A dataset snapshot that is missing, incomplete, empty or does not match its digest."""

    exit_code = 8
    code = "snapshot_invalid"


class StoreError(TidemillError):
    """The store cannot be opened or refused a write."""

    exit_code = 9
    code = "store_error"


class SchemaTooNewError(StoreError):
    """The state directory was written by a newer Tidemill."""

    exit_code = 10
    code = "schema_too_new"


class ConflictError(StoreError):
    """A compare-and-set found another value than expected."""

    exit_code = 11
    code = "conflict"


class StaleTokenError(StoreError):
    """A worker whose lease was taken over tried to write."""

    exit_code = 12
    code = "stale_token"


class TrainingError(TidemillError):
    """Training stopped without an artifact."""

    exit_code = 13
    code = "training_failed"


class EvaluationError(TidemillError):
    """A score is missing or cannot be trusted; an evaluation fails, it never degrades."""

    exit_code = 14
    code = "evaluation_failed"


class RegistryError(TidemillError):
    """The model registry refused or does not answer."""

    exit_code = 15
    code = "registry_error"


class StackError(TidemillError):
    """A server of the local stack does not start, stop or answer."""

    exit_code = 16
    code = "stack_error"


class WorkerLostError(TidemillError):
    """A child process was killed (out of memory, an operator, a machine going down) before it could say anything."""

    exit_code = 19
    code = "worker_lost"


class UnavailableError(TidemillError):
    """The gateway cannot answer now (queue full, engine closed)."""

    exit_code = 17
    code = "unavailable"


class DemoError(TidemillError):
    """A part of the demo's story did not happen."""

    exit_code = 18
    code = "demo_failed"


class SourceError(TidemillError):
    """A source of feedback that cannot be reached now; it is tried again."""

    exit_code = 23
    code = "source_unavailable"


class PrivacyBudgetError(TidemillError):
    """A private run that would spend more than its model's budget of epsilon."""

    exit_code = 24
    code = "privacy_budget_spent"
