"""The parts of TFDS that are patched exist. An upgrade that moves them fails here."""

import inspect
import logging
import sys
from unittest import mock

import pytest
import tensorflow_datasets as tfds

from flax_resnets.data.tfds import patches
from flax_resnets.errors import UserError


def test_a_new_builder_asks_the_network_for_metadata_unless_it_is_kept_from_it(tmp_path):
    asked = mock.Mock()
    with mock.patch.object(tfds.core.DatasetInfo, "initialize_from_bucket", asked):
        tfds.builder("mnist", data_dir=tmp_path)
        assert asked.called
        asked.reset_mock()
        with patches.no_network_for_metadata():
            tfds.builder("mnist", data_dir=tmp_path)
        assert not asked.called


def test_features_json_is_read_by_the_name_of_a_class(tmp_path):
    features = tfds.features.FeaturesDict({"label": tfds.features.ClassLabel(num_classes=2)})
    features.save_config(tmp_path)
    (path,) = tmp_path.glob("features.json")
    path.write_text(path.read_text().replace("ClassLabel", "NoSuchFeature"))
    with patches.only_features_of_tfds(), pytest.raises(UserError, match=r"NoSuchFeature.*is no feature of TFDS"):
        tfds.features.FeaturesDict.from_config(tmp_path)


def test_a_download_is_tried_as_often_as_it_is_told():
    from tensorflow_datasets.core.download import downloader

    before = downloader.MAX_RETRIES
    with patches.few_retries():
        assert downloader.MAX_RETRIES == 4 < before
    assert before == downloader.MAX_RETRIES
    assert inspect.getsource(downloader).count("MAX_RETRIES") >= 2  # defined once, and used


def test_its_loggers_are_those_that_are_quietened():
    with patches.quiet_tfds():
        assert logging.getLogger("absl").level == logging.getLogger("urllib3").level == logging.ERROR


def test_tensorflow_is_one_lazy_object_that_its_modules_hold():
    from tensorflow_datasets.core.utils import lazy_imports_utils

    tensorflow = lazy_imports_utils.tensorflow

    def holds(module: object) -> bool:
        return any(vars(module).get(name) is tensorflow for name in ("tf", "tensorflow"))

    modules = [module for name, module in sys.modules.items() if name.startswith("tensorflow_datasets")]
    holders = [module for module in modules if holds(module)]
    assert len(holders) > 10
    with patches.tensorflow_stand_in():
        assert not any(map(holds, holders))
    assert all(map(holds, holders))


def test_a_builder_makes_its_splits_from_what_a_download_manager_returns():
    assert [*inspect.signature(tfds.core.GeneratorBasedBuilder._split_generators).parameters][:2] == [
        "self",
        "dl_manager",
    ]
    for name in ("download", "extract", "download_and_extract", "iter_archive", "manual_dir", "download_dir"):
        assert hasattr(tfds.download.DownloadManager, name)


def test_a_split_in_words_becomes_ranges_of_records():
    whole = tfds.core.SplitInfo(name="train", shard_lengths=[6, 4], num_bytes=0)
    ranges = tfds.core.ReadInstruction.from_spec("train[:80%]+train[9:]").to_absolute({"train": whole})
    assert [(each.splitname, each.from_, each.to) for each in ranges] == [("train", None, 8), ("train", 9, None)]
