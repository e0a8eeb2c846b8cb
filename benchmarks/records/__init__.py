"""Keeps the records of runs, and writes pages from them."""
