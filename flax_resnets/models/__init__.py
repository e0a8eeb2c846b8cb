"""Architectures alone: pure linen modules, no data, no optimizer, no I/O."""
