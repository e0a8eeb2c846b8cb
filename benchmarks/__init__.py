"""Scripts that produce the figures of BENCHMARKS.md, RESULTS.md and pages of docs/. Run them with `python -m`."""
