"""The parts of `benchmarks/on_gpu.py`: what is right, what is fast, and where the time goes."""
