"""What a score is."""
