"""Benchmarks: what Portico costs, measured beside its peers on this machine."""
