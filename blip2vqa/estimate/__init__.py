"""Estimate memory and time of a run before it begins."""
