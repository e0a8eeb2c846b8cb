"""Tests of what a run survives."""
