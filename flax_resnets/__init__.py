"""ResNets in JAX and Flax."""
