"""`prepare`: downloads and prepares a dataset of TFDS, and says what is there."""

import json

from flax_resnets import cli
from flax_resnets.data.tfds import SAMPLE_DIR


def test_what_is_prepared_already_is_told(capsys):
    assert cli.main(["prepare", "fashion_mnist_sample"]) == 0
    out, err = capsys.readouterr()
    first = (
        f"fashion_mnist_sample/1.0.0: was prepared already, as array_record in {SAMPLE_DIR}/fashion_mnist_sample/1.0.0"
    )
    assert out.splitlines() == [first, "  train: 6,000 examples", "  test: 1,000 examples"]
    assert err == ""


def test_a_line_of_json(capsys):
    assert cli.main(["prepare", "fashion_mnist_sample", "--json"]) == 0
    prepared = json.loads(capsys.readouterr().out)
    assert (prepared["splits"], prepared["before"]) == ({"train": 6000, "test": 1000}, True)


def test_mistakes(capsys, tmp_path):
    for arguments, message in [
        (["fashion-mnist"], "did you mean 'fashion_mnist'?"),
        (["fashion_mnist", f"--data_dir={tmp_path / 'nowhere'}"], "no such directory"),
        ([], "prepare: "),
    ]:
        assert cli.main(["prepare", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
