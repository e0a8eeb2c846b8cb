"""Weights of torchvision and timm: loading them into linen variables, and exporting variables, without torch."""

from flax_resnets.weights.export import export_state_dict
from flax_resnets.weights.load import FreshHeadWarning, WeightsNote, load_weights

__all__ = ["FreshHeadWarning", "WeightsNote", "export_state_dict", "load_weights"]
