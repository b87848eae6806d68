"""One training run, top to bottom in `recipe`."""
