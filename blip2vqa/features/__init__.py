"""Outputs of the frozen towers: computed once, kept on disk."""
