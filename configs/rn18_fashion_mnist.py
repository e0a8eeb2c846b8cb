"""ResNet-18 on Fashion-MNIST, 96 px, as in section 8.6 of Dive into Deep Learning.

    python train.py --config configs/rn18_fashion_mnist.py

The settings are those of the book's edition 1.0 (2023): plain SGD with a constant learning rate of 0.01, batches of
128, 10 epochs, images enlarged to 96 px, pixels from 0 to 1 without normalisation, no augmentation. That edition shows
its accuracy as a curve, without a figure.

Reached so far: 90.20 % on all 10,000 test images after 5 of the 10 epochs (84.19, 87.39, 88.36, 89.39 after the epochs
before), seed 0, 1 CPU core (x86-64 virtual machine), Python 3.13, jax 0.12.0.1. An epoch took 26 minutes or more,
shared with other work. The run was stopped at step 54; for the steps before, RESULTS.md assumes the speed of those
after. The learning rate is constant, so the other five epochs will not change these figures. An earlier run on two
cores, with an earlier version and the same seed, reached 84.69, 88.02, 89.00 and 89.57 % in its 4 epochs.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="resnet18",
        dataset="fashion_mnist",
        image_size=96,
        store_size=28,
        mean=(0.0,),
        std=(1.0,),
        flip=False,
        batch_size=128,
        epochs=10,
        optimizer="sgd",
        schedule="constant",
        learning_rate=0.01,
        momentum=(0.0, 0.0),
        weight_decay=0.0,
    )
