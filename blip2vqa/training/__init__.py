"""Carry out one training run; `recipe` shows it from top to bottom."""
