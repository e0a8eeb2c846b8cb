"""Compares the networks with those of torchvision and timm."""
