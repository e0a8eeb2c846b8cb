"""A network that was trained on a folder of pictures sees new pictures as its evaluation saw them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flax_resnets import Classifier, create_model
from flax_resnets.data.source import open_source
from flax_resnets.inference.preprocess import Settings


@pytest.fixture
def photos(tmp_path) -> Path:
    """Pictures of two classes: turned ones, transparent ones, and one large enough to be decoded at a quarter."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((800, 640))
    turned = Image.Exif()
    turned[0x0112] = 6
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            smooth.save(tmp_path / split / name / "large.jpg", exif=turned)
            picture = rng.integers(0, 256, (30, 20, 4)).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / split / name / "transparent.png")
    return tmp_path


def test_predict_sees_what_evaluation_sees(photos):
    import jax

    settings = Settings(
        model="lenet", dataset="folder", data_dir=str(photos), image_size=28, channels=3, mean=(0.5,), std=(0.3,)
    )
    model = create_model("lenet", num_classes=2)
    variables = model.init(jax.random.key(0), np.zeros((1, 28, 28, 3)))
    classifier = Classifier(model, variables, settings, ("cat", "dog"))
    evaluation = classifier.evaluate(batch_size=4)
    np.testing.assert_array_equal(evaluation.logits, classifier.logits(photos / "val", batch_size=4))
    # The cached and the streamed evaluation see the same.
    streamed = classifier.evaluate(images="streamed", broken_images="skip", batch_size=4)
    np.testing.assert_array_equal(evaluation.logits, streamed.logits)
    source = open_source("folder", "validation", photos)
    assert source.image(0).shape == (800, 640, 3)
    assert (
        source.image(1)[0, 0].tolist() != np.asarray(Image.open(photos / "val/cat/transparent.png"))[0, 0, :3].tolist()
    )
