"""Network in network on Fashion-MNIST, 224 px, as in section 8.3 of Dive into Deep Learning.

    python train.py --config configs/nin_fashion_mnist.py

The settings are those of the book's edition 1.0 (2023): plain SGD with a constant learning rate of 0.05, batches of
128, 10 epochs, images enlarged to 224 px, pixels from 0 to 1 without normalisation, no augmentation. That edition shows
its accuracy as a curve, without a figure. The edition of July 2021 prints a test accuracy of 0.865, reached with
learning rate 0.1 and batches of 128.

Reached so far: 26.06 % on all 10,000 test images after the first of the 10 epochs, seed 0. The loss is only beginning
to leave its plateau: its mean over the epoch is 2.25 nats, and chance is 2.30. 1 CPU core (x86-64 virtual machine, AMD
Zen 5), Python 3.13, jax 0.12.0.1; 46 minutes, shared with other work; 28 at the speed without other work.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="nin",
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
        learning_rate=0.05,
        momentum=(0.0, 0.0),
        weight_decay=0.0,
    )
