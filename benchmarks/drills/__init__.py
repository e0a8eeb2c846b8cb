"""What runs survive."""
