"""Rows to adapter: tokenise and pack, LoRA fine-tuning, checkpoints, artifact."""
