"""ResNet-18 on CIFAR-10, enlarged to 96 px, 30 epochs.

    python train.py --config configs/rn18_cifar10.py

No run of this recipe is recorded yet.
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
