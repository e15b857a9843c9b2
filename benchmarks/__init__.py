"""Speed and fidelity, side by side with the peers; run with ``python -m benchmarks``."""
