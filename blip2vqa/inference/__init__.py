"""Asking a loaded model."""
