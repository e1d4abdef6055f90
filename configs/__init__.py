"""What can be set: typed sections, shipped profiles, contracts, prompts and suites. Imports without torch."""
