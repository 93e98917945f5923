"""Benchmarks: the cost of Portico, compared with similar servers."""
