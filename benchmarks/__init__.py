"""Scripts behind the figures of BENCHMARKS.md, RESULTS.md and pages of docs/, by kind; run them with `python -m`."""
