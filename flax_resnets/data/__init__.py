"""Datasets on the host, cached or streamed: of TFDS, folders, parquet files, arrays, the Hugging Face hub, a sample."""
