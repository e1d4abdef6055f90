"""Counters of one gateway process in Prometheus' text format. No label holds anything a user typed."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping

LATENCY_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_HELP = {
    "tidemill_requests_total": "Chat requests by version, arm and HTTP status.",
    "tidemill_tokens_total": "Tokens read (in) and written (out) by version.",
    "tidemill_feedback_total": "Feedback items by kind and result.",
    "tidemill_record_failures_total": "Answers whose record could not be committed.",
    "tidemill_request_seconds": "Time from request to complete answer.",
    "tidemill_queue": "Requests that wait for a place in the batch.",
    "tidemill_in_flight": "Requests being answered.",
    "tidemill_route_revision": "Revision of the serving pointer this process follows.",
    "tidemill_canary_share": "The canary's share of users.",
}


class Metrics:
    """Thread-safe counters and one latency histogram per version."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[tuple[str, tuple[tuple[str, str], ...]], int] = defaultdict(int)
        self._latency: dict[str, list[int]] = defaultdict(lambda: [0] * (len(LATENCY_BUCKETS_S) + 1))
        self._latency_sum: dict[str, float] = defaultdict(float)

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._counters[(name, tuple(sorted(labels.items())))] += amount

    def observe_latency(self, version: str, seconds: float) -> None:
        """Add one answer to the histogram."""
        place = next((i for i, le in enumerate(LATENCY_BUCKETS_S) if seconds <= le), len(LATENCY_BUCKETS_S))
        with self._lock:
            self._latency[version][place] += 1
            self._latency_sum[version] += seconds

    def render(self, gauges: Mapping[str, float]) -> str:
        """Everything in the text exposition format, gauges read now."""
        with self._lock:
            counters = dict(self._counters)
            latency = {version: list(counts) for version, counts in self._latency.items()}
            sums = dict(self._latency_sum)
        lines: list[str] = []
        for name in sorted({name for name, _ in counters}):
            lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} counter"]
            lines += [f"{name}{_labels(dict(key[1]))} {v}" for key, v in sorted(counters.items()) if key[0] == name]
        if latency:
            name = "tidemill_request_seconds"
            lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} histogram"]
            for version, counts in sorted(latency.items()):
                total = 0
                for bound, count in zip((*map(str, LATENCY_BUCKETS_S), "+Inf"), counts, strict=True):
                    total += count
                    lines.append(f"{name}_bucket{_labels({'le': bound, 'version': version})} {total}")
                lines.append(f"{name}_sum{_labels({'version': version})} {sums[version]:.6f}")
                lines.append(f"{name}_count{_labels({'version': version})} {total}")
        for name, value in sorted(gauges.items()):
            lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} gauge", f"{name} {value:g}"]
        return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{k}="{_escape(v)}"' for k, v in sorted(labels.items())) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
