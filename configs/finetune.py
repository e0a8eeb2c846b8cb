"""Fine-tunes a trained ResNet to a folder of pictures: the head alone for one epoch, then all layers.

    python train.py --config configs/finetune.py --config.weights=SOURCE --config.data_dir=photos

SOURCE is a file of weights, a run's workdir, a saved folder, hf-hub:owner/name, or a name of timm's weights such as
resnet18.a1_in1k. For another network give `--config.model=NAME`; docs/finetune.md has more.

The two phases are fastai's `fine_tune`, and each layer has 0.8 times the rate of the layer above it.

No run with pretrained weights is recorded yet: none are part of this repository.
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
        batch_size=32,
        epochs=6,
        freeze_epochs=1,
        learning_rate=2e-3,
        pct_start=0.3,
        div_factor=5.0,
        layer_decay=0.8,
        label_smoothing=0.1,
    )
