"""Benchmarks of stscale on real and simulated tissue; each writes one JSON file to `benchmarks/results`."""
