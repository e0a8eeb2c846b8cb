"""A small ResNet on the sample of Fashion-MNIST that ships with the package: from nothing to a result in a minute."""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="resnet18",
        model_options={"stem": "small", "width": 8, "zero_init_last": True},
        dataset="fashion_mnist_sample",
        image_size=28,
        mean=(0.286,),
        std=(0.353,),
        batch_size=64,
        eval_batch_size=1000,
        epochs=10,
        learning_rate=5e-3,
    )
