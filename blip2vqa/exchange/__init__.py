"""Adapters as files that know what they are."""
