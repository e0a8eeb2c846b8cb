"""ResNet-50 on Imagenette v2, 224 px, 20 epochs: for a GPU or a TPU.

    python train.py --config configs/rn50_imagenette.py

The network is fastai's xresnet50; the textbook reaches 87.3 % with this image size and number of epochs. One epoch is
9,469 images of 4.3 GMAC in the forward pass. Two CPU cores would need four days for all twenty, so no run is recorded
here. `rn50_imagenette_128.py` shows what such a machine can do.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="resnet50d",
        dataset="imagenette/320px-v2",
        image_size=224,
        store_size=256,
        resize="crop",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        crop_scale=(0.35, 1.0),
        batch_size=64,
        epochs=20,
        learning_rate=4e-3,
        precision="bfloat16",
    )
