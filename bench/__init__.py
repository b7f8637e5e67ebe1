"""Benches: programs that compare Tailor with the alternatives, started by `make bench-*`."""
