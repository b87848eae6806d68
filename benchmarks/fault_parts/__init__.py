"""The parts of `benchmarks/faults.py`, one module each."""
