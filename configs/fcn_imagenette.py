"""Five stride-2 convolutions on Imagenette, 128 px, as in chapter 14 of Deep Learning for Coders.

    python train.py --config configs/fcn_imagenette.py

The settings are those of Howard and Gugger's book (2020), section "Going Back to Imagenette": Adam with decoupled
weight decay, one cycle up to 3e-3, batches of 128, 5 epochs. From images of 160 px half or more of the area is cropped,
resized to 128 px, and mirrored at random. The book also rotates, warps and relights images, and trains in half
precision (`--config.precision=float16`). In the book the last epoch reaches 0.659 on the validation images.

Reached: 67.91 ± 0.47 % on all 3,925 validation images after the last epoch, the mean of seeds 0 to 2 (67.44, 68.38,
67.90). 2 CPU cores (x86-64 virtual machine), Python 3.13, jax 0.12.0.1; 72 seconds of training.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="fcn",
        dataset="imagenette/160px-v2",
        image_size=128,
        store_size=160,
        resize="crop",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        crop_scale=(0.5, 1.0),
        batch_size=128,
        epochs=5,
        learning_rate=3e-3,
    )
