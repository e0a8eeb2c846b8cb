"""DenseNet on Fashion-MNIST, 96 px, as in section 8.7 of Dive into Deep Learning.

    python train.py --config configs/densenet_fashion_mnist.py

The settings are those of the book's edition 1.0 (2023): plain SGD with a constant learning rate of 0.01, batches of
128, 10 epochs, images enlarged to 96 px, pixels from 0 to 1 without normalisation, no augmentation. That edition shows
its accuracy as a curve, without a figure. The edition of July 2021 prints a test accuracy of 0.891 (with a max-pool
before the last layer), reached with learning rate 0.1 and batches of 256.

Reached: 90.53 % on all 10,000 test images after the last epoch (the best one), seed 0, 2 CPU cores (x86-64 virtual
machine), Python 3.13, jax 0.12.0.1. An epoch takes 6.5 to 7 minutes without other work on the machine. This run shared
the machine, and its fourth epoch was interrupted and then paused; RESULTS.md includes that time.

The accuracy jumps from epoch to epoch (76 84 83 89 84 80 87 90 86 91 %). At this learning rate the first convolution
changes fast: the variance of one of its channels changes by 10 to 23 % within four steps, and the running statistics
lag behind. At step 3,400 they gave 83.3 % on the first 2,560 test images; statistics recomputed over 20 batches gave
89.9 %.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="densenet",
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
