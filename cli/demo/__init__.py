"""The demo: a fictional company, its customers, and the loop closing by itself (`make demo`)."""
