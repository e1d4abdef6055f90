"""What a row is and when it may teach."""
