"""Datasets on the host, cached or streamed: TFDS's, folders, parquet files, those of the Hugging Face hub, a sample."""
