"""ResNet-50 on ImageNet, 224 px, bfloat16, 90 epochs. Compiled for TPUs; not trained here.

    python train.py --config configs/rn50_imagenet.py --compile_only --topology v5e:4x4
    python train.py --config configs/rn50_imagenet.py --config.data_dir=DIR

This is the well-known recipe for 76 %: Goyal et al. 2017, arXiv:1706.02677, who reach 76.3 % at any batch size up to
8192 with Nesterov SGD, a learning rate of 0.1 for each 256 images (1.6 at this batch size), 5 epochs of warm-up, weight
decay 1e-4, and γ = 0 at the start in the last norm of each block. There are two refinements of He et al. 2018,
arXiv:1812.01187, section 5: a cosine instead of steps, and label smoothing 0.1. As there, biases and norms do not
decay. Another batch size needs another learning rate: `--config.batch_size=1024 --config.learning_rate=0.4`.

The recipe has not been trained here, so there is no accuracy to show. Its step was compiled for v5e:4x4, v5e:2x2,
v6e:2x2, v4:2x2x1 and v5p:2x2x1 with 256 images a chip, and fits all of them. From the compiler's figures, a v5e-16
needs 48 minutes or more for the 90 epochs (docs/scale.md).

Two things differ from the papers. The warm-up rises as a cosine, from 0.1. Images are stored as the 256-pixel square in
their centre, and the random-resized crop is taken from that square. Evaluation uses the 224 pixels in its centre, as
the papers do.

The 1,281,167 training images would take 252 GB as such squares, so they are decoded when they are needed.
`images=cached` stores them in `$FLAX_RESNETS_CACHE` instead, and the run computes the same numbers. Each chip trains on
256 images a step, so as many must be decoded in the time of a step; BENCHMARKS.md says how many a core decodes. The
recipe was run on two CPU cores with `--config.dataset=imagenette/320px-v2 --config.batch_size=16
--config.eval_batch_size=64 --config.learning_rate=0.00625` for an epoch; it was stopped in its evaluation and again 5
steps later, and was resumed each time.

Data: TFDS cannot download imagenet2012. Its documentation says which files of image-net.org must be put where.
"""

from flax_resnets.training.config import Config


def get_config() -> Config:
    return Config(
        model="resnet50",
        model_options={"zero_init_last": True},
        dataset="imagenet2012",
        image_size=224,
        store_size=256,
        resize="crop",
        images="streamed",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        crop_scale=(0.08, 1.0),
        crop_pct=224 / 256,
        batch_size=4096,
        epochs=90,
        optimizer="sgd",
        learning_rate=1.6,
        pct_start=5 / 90,
        div_factor=16.0,
        momentum=(0.9, 0.9),
        weight_decay=1e-4,
        label_smoothing=0.1,
        precision="bfloat16",
    )
