"""Make VQA data from a catalogue of products."""
