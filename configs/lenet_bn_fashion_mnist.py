"""LeNet with batch normalisation on Fashion-MNIST, 28 px, as in section 8.5 of Dive into Deep Learning.

    python train.py --config configs/lenet_bn_fashion_mnist.py

The settings are those of the book's edition 1.0 (2023): plain SGD with a constant learning rate of 0.1, batches of 128,
10 epochs, pixels from 0 to 1 without normalisation, no augmentation. As in that section, the first convolution has no
padding. That edition shows its accuracy as a curve, without a figure. The edition of July 2021 prints a test accuracy
of 0.795, reached with learning rate 1.0 and batches of 256.

Reached: 87.13 ± 1.24 % on all 10,000 test images after the last epoch, seeds 0 to 4 (88.54, 87.53, 85.29, 87.71 and
86.59 %), 2 CPU cores (x86-64 virtual machine), Python 3.13, jax 0.12.0.1. Seed 0 trained for 43 seconds; the other
seeds took 3 minutes each, beside other runs. At the constant learning rate of 0.1 the accuracy changes by up to four
points from epoch to epoch, to the end.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="lenet_bn",
        model_options={"padding": 0},
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
