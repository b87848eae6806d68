"""Which questions are dropped, and why."""
