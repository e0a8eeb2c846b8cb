"""ResNet-18 with the three-convolution stem on Imagenette v2, 128 px, 5 epochs, Muon and Mish: 85.7 %.

    python train.py --config configs/rn18_imagenette.py

Reached: 85.68 ± 0.28 % on all 3,925 validation images after the last epoch (mean and sample standard deviation of seeds
0 to 3: 85.86, 85.27, 85.86, 85.73), no test-time augmentation. Seed 0 took 19 minutes of training on 2 CPU cores
(x86-64 virtual machine); seeds 1 and 2 took 50 to 61 minutes on one of these cores, partly shared with other work.
Python 3.13, jax 0.12.0.1, float32.

The textbook's ResNet-18 (fastai's, same stem, same epochs) reaches 75.7 %. With AdamW, ReLU and no label smoothing,
this recipe reaches 80.79 % at seed 0: docs/experiments.md shows what each setting is worth at 64 px.

Data: all 9,469 training and 3,925 validation images, from a public copy in which they are squashed to squares of
160x160. TFDS downloads them at 160 px on the shorter side with their aspect ratio; `resize="squash"` then squashes them
too.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="resnet18d",
        model_options={"activation": "mish"},
        dataset="imagenette/160px-v2",
        image_size=128,
        store_size=160,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        batch_size=64,
        epochs=5,
        optimizer="muon",
        learning_rate=4e-3,
        label_smoothing=0.1,
        save_every=50,
    )
