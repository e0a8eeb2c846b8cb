"""ResNet-50 with Muon and growing images on Imagenette v2, 128 px, 20 epochs, by the rules of fastai's leaderboard.

    python train.py --config configs/imagenette_20ep.py

The rules: random initial weights, validation images no larger than the training images, the accuracy of the last epoch.
The images are 64 px for six epochs, 96 px for eight and 128 px for the last six. Crops keep 35 % or more of the area:
the network would memorise whole images in twenty epochs.

Reached: 90.90 % on all 3,925 validation images after the last epoch (the best one; 65.07 after the six epochs at 64 px,
87.39 after those at 96 px), seed 0, no test-time augmentation; one run. The aim was 91.6 %. Hardware: 1 CPU core
(x86-64 virtual machine, AMD Zen 5) for 13 epochs, at times shared with other work, and 2 cores for the rest; Python
3.13, jax 0.12.0.1, float32. An epoch took 5 minutes at 64 px, 8 at 96 px (on one core) and 7 at 128 px (on two).
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="resnet50d",
        model_options={"activation": "mish"},
        dataset="imagenette/160px-v2",
        image_size=128,
        progressive=((6, 64), (14, 96)),
        store_size=160,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        crop_scale=(0.35, 1.0),
        batch_size=64,
        epochs=20,
        optimizer="muon",
        learning_rate=4e-3,
        label_smoothing=0.1,
        save_every=50,
    )
