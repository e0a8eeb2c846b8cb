"""Augmentation and normalisation on the device, inside the compiled step: pure, jittable functions on batches."""

from flax_resnets.augment.color import color_jitter
from flax_resnets.augment.erasing import random_erasing
from flax_resnets.augment.evaluation import EvaluationConfig, evaluated, for_evaluation
from flax_resnets.augment.geometry import (
    centre_crop,
    random_affine,
    random_flip,
    random_resized_crop,
    random_translate,
)
from flax_resnets.augment.mixing import MixConfig, cutmix, mix, mixup
from flax_resnets.augment.normalise import normalise
from flax_resnets.augment.pipeline import AugmentConfig, for_training
from flax_resnets.augment.policies import randaugment, trivialaugment
from flax_resnets.augment.resampling import resize

__all__ = [
    "AugmentConfig",
    "EvaluationConfig",
    "MixConfig",
    "centre_crop",
    "color_jitter",
    "cutmix",
    "evaluated",
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
