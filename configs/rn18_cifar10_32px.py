"""ResNet-18 with the small-image stem on CIFAR-10, 32 px, 30 epochs.

    python train.py --config configs/rn18_cifar10_32px.py

Reached on a sample of 2,000 training and 500 validation images: 60.0 % after the last epoch, 60.6 % at best, seed 0.
Hardware: 2 CPU cores (x86-64 virtual machine), Python 3.13, jax 0.12.0.1; 20 minutes of training, shared with other
work. No run on the whole of CIFAR-10 is recorded yet.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="resnet18",
        model_options={"stem": "small", "zero_init_last": True},
        dataset="cifar10",
        image_size=32,
        mean=(0.491, 0.482, 0.447),
        std=(0.247, 0.243, 0.262),
        translate=4,
        batch_size=64,
        eval_batch_size=100,
        epochs=30,
        learning_rate=2e-3,
        weight_decay=0.05,
    )
