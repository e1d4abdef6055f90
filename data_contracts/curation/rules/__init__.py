"""One file a rule. Each has REASON, what it stops, and `apply(desk)`; `pipeline` has their order."""
