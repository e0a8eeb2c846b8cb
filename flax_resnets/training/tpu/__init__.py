"""The training step compiled for TPUs that are not here."""
