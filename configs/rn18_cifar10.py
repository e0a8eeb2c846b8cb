"""ResNet-18 on CIFAR-10, enlarged to 96 px, 30 epochs.

    python train.py --config configs/rn18_cifar10.py

Reached on a sample of 2,000 training and 500 validation images: 48.8 % after the last epoch, 49.8 % at best, seed 0.
The only augmentation is mirroring, so the network memorises the 2,000 images. Hardware: 2 CPU cores (x86-64 virtual
machine), Python 3.13, jax 0.12.0.1; 11 minutes of training. No run on the whole of CIFAR-10 is recorded yet.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="resnet18",
        model_options={"zero_init_last": True},
        dataset="cifar10",
        image_size=96,
        store_size=32,
        mean=(0.491, 0.482, 0.447),
        std=(0.247, 0.243, 0.262),
        batch_size=64,
        eval_batch_size=100,
        epochs=30,
        learning_rate=2e-3,
        weight_decay=0.05,
    )
