"""Drills: runs are interrupted and damaged, and must survive."""
