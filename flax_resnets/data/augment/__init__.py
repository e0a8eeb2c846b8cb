"""What happens to images on the device, inside the compiled step: pure functions of a key, batched and jittable."""

from flax_resnets.data.augment.color import color_jitter
from flax_resnets.data.augment.erasing import random_erasing
from flax_resnets.data.augment.geometry import (
    centre_crop,
    random_affine,
    random_flip,
    random_resized_crop,
    random_translate,
    resize,
)
from flax_resnets.data.augment.mixing import cutmix, mix, mixup
from flax_resnets.data.augment.pipeline import for_evaluation, for_training, normalise
from flax_resnets.data.augment.policies import randaugment, trivialaugment

__all__ = [
    "centre_crop",
    "color_jitter",
    "cutmix",
    "for_evaluation",
    "for_training",
    "mix",
    "mixup",
    "normalise",
    "randaugment",
    "random_affine",
    "random_erasing",
    "random_flip",
    "random_resized_crop",
    "random_translate",
    "resize",
    "trivialaugment",
]
