"""Prefect: ingest, retrain, rollout, watch; triggers, ledger, deployments."""
