"""Adapter to verdict: suites, scoring, paired statistics, gate, report."""
