"""Metrics, the baselines beside them, and comparisons of systems."""
