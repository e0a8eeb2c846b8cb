"""GoogLeNet on Fashion-MNIST, 96 px, as in section 8.4 of Dive into Deep Learning.

    python train.py --config configs/googlenet_fashion_mnist.py

The settings are those of the book's edition 1.0 (2023): plain SGD with a constant learning rate of 0.01, batches of
128, 10 epochs, images enlarged to 96 px, pixels from 0 to 1 without normalisation, no augmentation. That edition shows
its accuracy as a curve, without a figure. The edition of July 2021 prints a test accuracy of 0.888, reached with
learning rate 0.1 and batches of 128.

Reached: 84.14 % on all 10,000 test images after the last epoch (40.15, 42.82, 62.36, 32.67, 74.51, 75.90, 77.68, 82.09,
82.88 after the epochs before: the loss leaves its plateau in the third epoch and oscillates until the fifth), seed 0, 1
CPU core (x86-64 virtual machine), Python 3.13, jax 0.12.0.1, float32. An epoch took 23 minutes, or more when the
machine was shared with other work. The run was stopped and resumed four times; for the steps of an epoch before a stop,
RESULTS.md assumes the speed of those after it.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="googlenet",
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
