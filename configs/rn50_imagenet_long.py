"""ResNet-50 on ImageNet, trained at 176 px, 600 epochs: torchvision's newer recipe. Not trained here.

    python train.py --config configs/rn50_imagenet_long.py --config.data_dir=DIR

The recipe behind torchvision's second ImageNet weights, as Vryniotis 2021, "How to train state-of-the-art models using
TorchVision's latest primitives" (pytorch.org/blog), and torchvision's references/classification give it: SGD with
momentum 0.9, learning rate 0.5 for batches of 1024, 5 epochs of warm-up and a cosine, weight decay 2e-5 that spares the
norms, label smoothing 0.1, TrivialAugment, random erasing of 10 %, mixup 0.2 or CutMix 1.0 by a coin's throw, training
at 176 pixels, evaluation at 224, and the weights' average, to which the published accuracy belongs: `ema` in our table.
It reports 80.67 % with all of this, and 80.86 % with repeated augmentation besides, which is not to be had here.

The average: torchvision takes its decay of 0.99998 once in 32 steps and scales 1 - decay by batch * 32 / epochs, which
is 0.9989 each time, or 0.999966 a step.

Five things differ. The momentum is Nesterov's. Biases are spared the decay too. The learning rate moves with each step,
not each epoch. An image is taken as the 256-pixel square in its middle, and the random-resized crop is cut out of that.
Evaluation sees the middle 224/232 of that square's side, resized to 224; there the shorter side is resized to 232, and
the middle 224 are taken.

It has not been trained here, so there is no accuracy of its own to show.

Data: see rn50_imagenet.py. Decoding keeps pace with 600 epochs or it sets the pace: BENCHMARKS.md has a core's speed.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="resnet50",
        dataset="imagenet2012",
        image_size=224,
        progressive=((600, 176),),
        store_size=256,
        resize="crop",
        images="streamed",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        crop_scale=(0.08, 1.0),
        crop_pct=224 / 232,
        auto_augment="trivialaugment",
        random_erasing=0.1,
        mixup=0.2,
        cutmix=1.0,
        batch_size=1024,
        epochs=600,
        optimizer="sgd",
        schedule="warmup_cosine",
        learning_rate=0.5,
        warmup_epochs=5,
        momentum=(0.9, 0.9),
        weight_decay=2e-5,
        label_smoothing=0.1,
        ema_decay=0.999966,
        precision="bfloat16",
    )
