"""AlexNet on Fashion-MNIST, 224 px, as in section 8.1 of Dive into Deep Learning.

    python train.py --config configs/alexnet_fashion_mnist.py

The settings are those of the book's edition 1.0 (2023): plain SGD with a constant learning rate of 0.01, batches of
128, 10 epochs, images enlarged to 224 px, pixels from 0 to 1 without normalisation, no augmentation. That edition shows
its accuracy as a curve, without a figure. The edition of July 2021 prints a test accuracy of 0.879, reached with
learning rate 0.01 and batches of 128.

Reached so far: 79.88 % on all 10,000 test images after 2 of the 10 epochs (75.56 after the first), seed 0, 1 CPU core
(x86-64 virtual machine), Python 3.13, jax 0.12.0.1. An epoch took 66 minutes or more; the machine was shared with other
work, and the run was paused.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="alexnet",
        dataset="fashion_mnist",
        image_size=224,
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
