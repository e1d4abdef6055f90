"""Verdict to governed version: the registry seam, MLflow, lineage."""
