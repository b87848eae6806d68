"""Files and fingerprints of a base model."""
