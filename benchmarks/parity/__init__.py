"""How far networks are from torchvision's and timm's."""
