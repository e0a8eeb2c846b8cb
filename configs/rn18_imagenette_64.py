"""ResNet-18 with the three-convolution stem on Imagenette v2, 64 px, 5 epochs: the baseline of docs/experiments.md.

    python train.py --config configs/rn18_imagenette_64.py

It has AdamW, one cycle and mirroring, and nothing else, so that the effect of a setting is visible. A run takes four to
five minutes on 2 CPU cores (x86-64 virtual machine), Python 3.13, jax 0.12.0.1.

Reached: 77.57 ± 0.52 % on all 3,925 validation images after the last epoch, the mean of seeds 0 and 1 (77.94, 77.20).
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="resnet18d",
        dataset="imagenette/160px-v2",
        image_size=64,
        store_size=160,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        batch_size=64,
        epochs=5,
        learning_rate=4e-3,
    )
