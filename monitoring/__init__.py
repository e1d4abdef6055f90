"""Traffic to decision: sequential tests, canary decision, drift. Pure mathematics."""
