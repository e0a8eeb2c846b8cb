"""ResNet-20, the first paper's for small images, on Fashion-MNIST, 28 px, random erasing, 20 epochs.

    python train.py --config configs/rn20_fashion_mnist.py

He et al. 2015, arXiv:1512.03385, section 4.2, with one channel in place of three.

No run of this recipe is recorded yet.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="resnet20_cifar",
        model_options={"zero_init_last": True},
        dataset="fashion_mnist",
        image_size=28,
        mean=(0.286,),
        std=(0.353,),
        translate=2,
        random_erasing=0.5,
        batch_size=128,
        eval_batch_size=500,
        epochs=20,
        learning_rate=1e-2,
        weight_decay=0.05,
    )
