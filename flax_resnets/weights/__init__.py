"""Weights from elsewhere: torchvision's and timm's, into linen variables and back, by name and without torch."""

from flax_resnets.weights.export import export_state_dict
from flax_resnets.weights.load import FreshHeadWarning, load_weights

__all__ = ["FreshHeadWarning", "export_state_dict", "load_weights"]
