"""Fine-tunes a trained ResNet to about a hundred photos, in minutes: strong augmentation, and an early stop.

    python train.py --config configs/photos.py --config.weights=SOURCE --config.data_dir=photos

SOURCE is a file of weights, a run's workdir, a saved folder or hf-hub:owner/name; `--config.model=NAME` is its network.
`photos` has a folder of pictures for each class, and best also a validation set: docs/data.md.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="resnet18",
        dataset="folder",
        image_size=128,
        store_size=160,
        resize="crop",
        crop_scale=(0.35, 1.0),
        auto_augment="trivialaugment",
        random_erasing=0.25,
        mixup=0.2,
        batch_size=16,
        epochs=20,
        freeze_epochs=3,
        learning_rate=2e-3,
        pct_start=0.3,
        div_factor=5.0,
        layer_decay=0.8,
        label_smoothing=0.1,
        best_by="loss",
        patience=8,
    )
