"""Making VQA data from a catalogue of products."""
