"""ResNet-18 with the three-convolution stem on Imagenette, 128 px, 5 epochs."""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="resnet18d",
        dataset="imagenette/160px-v2",
        image_size=128,
        store_size=160,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        batch_size=64,
        epochs=5,
        learning_rate=4e-3,
    )
