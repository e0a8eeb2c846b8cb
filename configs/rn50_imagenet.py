"""ResNet-50 on ImageNet, 224 px, bfloat16, 90 epochs. Compiled for TPUs; not trained here.

    python train.py --config configs/rn50_imagenet.py --compile_only --topology v5e:4x4
    python train.py --config configs/rn50_imagenet.py --config.data_dir=DIR

The recipe is the well-known one of 76 %: Goyal et al. 2017, arXiv:1706.02677 (76.3 % at any batch size up to 8192:
Nesterov SGD, learning rate 0.1 a 256 images, that is 1.6 at this batch size, 5 epochs of warm-up, weight decay 1e-4,
the last γ of each block from 0), with two refinements of He et al. 2018, arXiv:1812.01187, section 5: a cosine instead
of steps, and label smoothing 0.1; weight decay spares biases and norms, as there. Another batch size wants another
learning rate: `--config.batch_size=1024 --config.learning_rate=0.4`.

It has not been trained here, so there is no accuracy of its own to show. What has been done is to compile its step,
for v5e:4x4, v5e:2x2, v6e:2x2, v4:2x2x1 and v5p:2x2x1, 256 images a chip, which fits all of them.

Two things differ from the papers. The warm-up rises as a cosine, from 0.1. An image is taken as the 256-pixel square in
its middle, and the random-resized crop is cut out of that. Evaluation sees the 224 pixels in its middle, as there.

The 1,281,167 training images would be 252 GB as such squares, so they are decoded as they are seen. `images=cached`
keeps them in `$FLAX_RESNETS_CACHE` instead, to the same numbers. A chip's 256 images a step want as many decoded in the
step's time, and BENCHMARKS.md says what a core decodes. The recipe itself was run on two processor cores with
`--config.dataset=imagenette/320px-v2 --config.batch_size=16 --config.eval_batch_size=64 --config.learning_rate=0.00625`
for an epoch, stopped in its evaluation and 5 steps later, and went on.

Data: TFDS's imagenet2012 does not download itself; its documentation says which files of image-net.org to put where.
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
