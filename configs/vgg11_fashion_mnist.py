"""VGG-11 on Fashion-MNIST, 224 px, as in section 8.2 of Dive into Deep Learning.

    python train.py --config configs/vgg11_fashion_mnist.py

The settings are those of the book's edition 1.0 (2023): plain SGD with a constant learning rate of 0.01, batches of
128, 10 epochs, images enlarged to 224 px, pixels from 0 to 1 without normalisation, no augmentation. That edition shows
its accuracy as a curve, without a figure. The book itself trains the network with a quarter of the channels:
`configs/vgg11_quarter_fashion_mnist.py`.

No run of this recipe is recorded yet.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="vgg11",
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
