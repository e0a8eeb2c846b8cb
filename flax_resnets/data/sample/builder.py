"""The TFDS builder of the bundled sample."""

import io
from collections.abc import Iterator

import tensorflow_datasets as tfds

from flax_resnets.data.source import open_source

_PER_CLASS = {"train": 600, "test": 100}
_CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


class FashionMnistSample(tfds.core.GeneratorBasedBuilder):
    """Fashion-MNIST, the first 600 training and 100 test images of each class in TFDS's order."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, full_data_dir: str | None = None, **kwargs):
        """`full_data_dir` is where the whole `fashion_mnist` is, or will be prepared; the rest are TFDS's arguments."""
        self._full_data_dir = full_data_dir
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        full = tfds.builder("fashion_mnist", data_dir=self._full_data_dir).info
        return tfds.core.DatasetInfo(
            builder=self,
            description="A tenth of Fashion-MNIST: 6,000 training and 1,000 test images, as many of each class.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1)),
                    "label": tfds.features.ClassLabel(names=_CLASSES),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/zalandoresearch/fashion-mnist",
            citation=full.citation,
            license="MIT, Copyright © 2017 Zalando SE, https://tech.zalando.com",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        return {"train": self._generate_examples("train"), "test": self._generate_examples("validation")}

    def _generate_examples(self, split) -> Iterator[tuple[int, dict]]:
        source = open_source("fashion_mnist", split, self._full_data_dir)
        taken = [0] * source.num_classes
        for index in range(len(source)):
            label = source.label(index)
            if taken[label] < _PER_CLASS[source.split]:
                taken[label] += 1
                # The stored PNG unchanged, so that every machine writes the same bytes.
                yield index, {"image": io.BytesIO(source.encoded(index)), "label": label}
