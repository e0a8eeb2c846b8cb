"""Datasets on the host: TFDS and the bundled sample, decoded once into arrays."""
