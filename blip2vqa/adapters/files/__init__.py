"""An adapter's own files."""
