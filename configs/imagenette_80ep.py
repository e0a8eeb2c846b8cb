"""Imagenette v2 at 128 px in 80 epochs, by the rules of fastai's leaderboard: for a GPU or a TPU. Not trained here.

    python train.py --config configs/imagenette_80ep.py

The rules: random initial weights, the validation images no larger than the training images, the last epoch's accuracy.
The leaderboard's best at this size and length is 93.55 %.

The settings are those of imagenette_20ep.py, four times as long: training sees 64 px for 24 epochs, 96 for 32, 128 for
the last 24. It has not been trained here, where two CPU cores would take nine hours, so there is no accuracy of its own
to show; whether crops this large are still enough for images seen eighty times is not known either.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="resnet50d",
        model_options={"activation": "mish"},
        dataset="imagenette/160px-v2",
        image_size=128,
        progressive=((24, 64), (56, 96)),
        store_size=160,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        crop_scale=(0.35, 1.0),
        batch_size=64,
        epochs=80,
        optimizer="muon",
        learning_rate=4e-3,
        label_smoothing=0.1,
        save_every=500,
    )
