"""The networks, as linen modules. This package knows nothing of data, optimizers or files."""
