"""Speed of this library and of others."""
