"""What the demo showed, as a table for people and as JSON for machines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class DemoResult:
    """The figures; `failures` names every part of the story that did not happen."""

    short: bool
    exact_match_before: float | None = None
    """Share of the held-out questions answered the company's way, before anything was taught."""
    exact_match_after: float | None = None
    """The same at the end, act 2's questions included."""
    gate: str | None = None
    """Verdict of the last retrain's gate."""
    promoted_versions: int = 0
    rolled_back_versions: int = 0
    drift_detected: bool | None = None
    """None where the story has no drift (short)."""
    retrains: int = 0
    rows_accepted: int = 0
    """Feedback rows in the latest snapshot."""
    rows_quarantined: int = 0
    """Feedback rows held back, each with its reason."""
    wall_s: float = 0.0
    peak_rss_mb: int = 0
    acts: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: int = 0
    failed_requests: int = 0
    audit_entries: int = 0
    """Entries of the audit log, its hash chain verified."""
    failures: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 if the whole story happened, 18 (the code of DemoError) otherwise."""
        return 18 if self.failures else 0

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, the issue's keys first."""
        return {
            "demo": "short" if self.short else "full",
            "ok": not self.failures,
            "exact_match_before": _rounded(self.exact_match_before),
            "exact_match_after": _rounded(self.exact_match_after),
            "gate": self.gate,
            "promoted_versions": self.promoted_versions,
            "rolled_back_versions": self.rolled_back_versions,
            "drift_detected": self.drift_detected,
            "retrains": self.retrains,
            "rows_accepted": self.rows_accepted,
            "rows_quarantined": self.rows_quarantined,
            "wall_s": round(self.wall_s, 1),
            "peak_rss_mb": self.peak_rss_mb,
            "requests": self.requests,
            "failed_requests": self.failed_requests,
            "audit_entries": self.audit_entries,
            "acts": self.acts,
            "failures": self.failures,
        }

    def rows(self) -> list[tuple[str, str]]:
        """Label and value, for the table."""
        rows = [
            ("held-out questions answered the company's way, before", _percent(self.exact_match_before)),
            ("the same, after", _percent(self.exact_match_after)),
            ("gate of the last retrain", self.gate or "-"),
            ("versions promoted", str(self.promoted_versions)),
            ("versions rolled back", str(self.rolled_back_versions)),
            ("retrains, all started by themselves", str(self.retrains)),
            ("feedback rows accepted / quarantined", f"{self.rows_accepted} / {self.rows_quarantined}"),
            ("requests / failed", f"{self.requests} / {self.failed_requests}"),
            ("audit log entries, chain verified", str(self.audit_entries)),
            ("time", f"{self.wall_s / 60:.1f} min"),
            ("peak memory of all processes", f"{self.peak_rss_mb / 1024:.1f} GB"),
        ]
        if not self.short:
            rows.insert(5, ("drift detected and named", "yes" if self.drift_detected else "no"))
        return rows


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
