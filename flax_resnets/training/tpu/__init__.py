"""Compiling the training step for TPUs that are not attached."""
