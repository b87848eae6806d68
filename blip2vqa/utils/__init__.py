"""Helpers that every other part may use: for errors, files and processes; none knows of models or tables."""
