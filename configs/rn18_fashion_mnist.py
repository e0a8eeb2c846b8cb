"""ResNet-18 with the small-image stem on Fashion-MNIST, 28 px."""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="resnet18",
        model_options={"stem": "small", "zero_init_last": True},
        dataset="fashion_mnist",
        image_size=28,
        mean=(0.286,),
        std=(0.353,),
        batch_size=128,
        eval_batch_size=500,
        epochs=5,
        learning_rate=5e-3,
    )
