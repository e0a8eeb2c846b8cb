"""Runs that are kept, and the pages made of them."""
