"""What BENCHMARKS.md, RESULTS.md and some pages of docs/ quote: a script a claim, by kind; run by `python -m`."""
