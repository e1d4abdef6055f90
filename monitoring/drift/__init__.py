"""Drift of prompts against a frozen traffic reference: novelty, local share and mix shift, with names."""
