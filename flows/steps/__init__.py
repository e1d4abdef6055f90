"""The steps of a retrain: plain functions, one file each."""
