"""GoogLeNet on Fashion-MNIST, 96 px, as section 8.4 of Dive into Deep Learning trains it.

    python train.py --config configs/googlenet_fashion_mnist.py

The settings are those of the book's edition 1.0 (2023): plain SGD, learning rate 0.01 throughout, batches of 128, 10
epochs, pixels from 0 to 1 as they are and enlarged to 96 px, no augmentation. That edition draws its accuracy as a
curve, without a figure. The edition of July 2021 prints a test accuracy of 0.888, reached with learning rate 0.1 and
batches of 128.

Reached: 84.14 % on all 10,000 test images after the last epoch (40.15, 42.82, 62.36, 32.67, 74.51, 75.90, 77.68, 82.09,
82.88 before it: the loss leaves its plateau in the third, and swings until the fifth), seed 0, 1 CPU core (x86-64
virtual machine), Python 3.13, jax 0.12.0.1, float32; 23 minutes an epoch and more where other work was beside it. It
was stopped and went on four times; RESULTS.md counts the steps of an epoch before a stop at the speed of those after.
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
