"""ResNet-20 for small images, twice as wide as in its paper, on Fashion-MNIST, 28 px, random erasing, 16 epochs.

    python train.py --config configs/rn20_fashion_mnist.py

The network is that of He et al. 2015, arXiv:1512.03385, section 4.2, with one input channel instead of three and 32
channels in the first stage. The first eight epochs see images of 20 px.

Reached: 94.65 % on all 10,000 test images after the last epoch (the best one), seed 0. At the paper's width: 93.90 %
(`--config.model_options.width=16 --config.epochs=20 --config.progressive=`). 2 CPU cores (x86-64 virtual machine),
Python 3.13, jax 0.12.0.1, float32; 56 minutes of training, of which the run was paused for 8, and half of the rest was
shared with other work.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="resnet20_cifar",
        model_options={"width": 32, "zero_init_last": True},
        dataset="fashion_mnist",
        image_size=28,
        mean=(0.286,),
        std=(0.353,),
        translate=2,
        random_erasing=0.5,
        batch_size=128,
        eval_batch_size=500,
        epochs=16,
        progressive=((8, 20),),
        optimizer="muon",
        learning_rate=1e-2,
        weight_decay=0.05,
        save_every=200,
    )
