"""LeNet on Fashion-MNIST, 28 px, as in section 7.6 of Dive into Deep Learning.

    python train.py --config configs/lenet_fashion_mnist.py

The settings are those of the book's edition 1.0 (2023): plain SGD with a constant learning rate of 0.1, batches of 128,
10 epochs, pixels from 0 to 1 without normalisation, no augmentation. That edition shows its accuracy as a curve,
without a figure. The edition of July 2021 prints a test accuracy of 0.776, reached with learning rate 0.9 and batches
of 256.

Reached: 72.97 % on all 10,000 test images after the last epoch (the best one), seed 0, 2 CPU cores (x86-64 virtual
machine), Python 3.13, jax 0.12.0.1; 2.9 minutes of training with other work on the same cores. In the first two epochs
the accuracy stays at chance, as is usual for sigmoids without normalisation layers.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="lenet",
        dataset="fashion_mnist",
        image_size=28,
        store_size=28,
        mean=(0.0,),
        std=(1.0,),
        flip=False,
        batch_size=128,
        epochs=10,
        optimizer="sgd",
        schedule="constant",
        learning_rate=0.1,
        momentum=(0.0, 0.0),
        weight_decay=0.0,
    )
