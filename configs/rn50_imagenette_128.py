"""ResNet-50 on Imagenette v2 with images growing from 64 over 96 to 128 px, 10 epochs.

    python train.py --config configs/rn50_imagenette_128.py

No run of this recipe is recorded yet.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="resnet50d",
        model_options={"activation": "mish"},
        dataset="imagenette/160px-v2",
        image_size=128,
        progressive=((4, 64), (8, 96)),
        store_size=160,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        batch_size=64,
        epochs=10,
        optimizer="muon",
        learning_rate=4e-3,
        label_smoothing=0.1,
        save_every=50,
    )
