"""Datasets on the host, cached or streamed: TFDS and the bundled sample."""
