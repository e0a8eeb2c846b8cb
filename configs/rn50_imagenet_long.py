"""ResNet-50 on ImageNet, trained at 176 px, 600 epochs: torchvision's newer recipe. Not trained here.

    python train.py --config configs/rn50_imagenet_long.py --config.data_dir=DIR

This is the recipe of torchvision's second ImageNet weights: Vryniotis 2021, "How to train state-of-the-art models using
TorchVision's latest primitives" (pytorch.org/blog), and torchvision's references/classification. It has SGD with
momentum 0.9, learning rate 0.5 for batches of 1024, 5 epochs of warm-up and a cosine, weight decay 2e-5 without decay
of the norms, label smoothing 0.1, TrivialAugment, random erasing of 10 %, mixup 0.2 or CutMix 1.0 with equal
probability, training at 176 pixels, evaluation at 224, and an average of the weights. The published accuracy is that of
the average: `ema` in our table. The source reports 80.67 % with all of this, and 80.86 % with repeated augmentation as
well, which this library does not have.

The average: torchvision updates it every 32 steps with decay 0.99998, and scales 1 - decay by batch * 32 / epochs. That
is a decay of 0.9989 for each update, or 0.999966 for each step.

Five things differ. The momentum is Nesterov's. Biases do not decay either. The learning rate changes with each step,
not each epoch. Images are stored as the 256-pixel square in their centre, and the random-resized crop is taken from
that square. Evaluation takes the middle 224/232 of that square's side and resizes it to 224; torchvision resizes the
shorter side to 232 and takes the middle 224.

The recipe has not been trained here, so there is no accuracy to show.

Data: see rn50_imagenet.py. If decoding is slower than the devices, it sets the speed of the run: BENCHMARKS.md says how
many images a core decodes.
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
