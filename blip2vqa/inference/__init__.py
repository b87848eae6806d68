"""Ask questions of a loaded model."""
