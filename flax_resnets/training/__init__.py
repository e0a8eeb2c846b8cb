"""Training: configuration, state, schedule, step, metrics, checkpoints, and the loop that runs them."""
