"""Names of classes from files and command lines."""

import pytest

from flax_resnets.errors import UserError
from flax_resnets.inference.class_names import IMAGENETTE, given_names, in_words


def test_imagenettes_ten_classes_have_words():
    assert len(set(IMAGENETTE.values())) == 10
    assert in_words("n03417042") == "garbage truck"
    assert in_words("n00000000") == "n00000000"


def test_a_file_has_a_name_in_each_line(tmp_path):
    (tmp_path / "names.txt").write_text("cat\n\n  a dog \nfish, fried\n", encoding="utf-8")
    assert given_names(str(tmp_path / "names.txt")) == ("cat", "a dog", "fish, fried")


def test_a_file_of_an_editor_of_windows_and_one_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "names.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    assert given_names("~/names.txt") == ("cat", "dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names.txt", "--class-names=names.txt: no such file"),
        (",", "holds no name"),
        ("/", "is no file"),
        ("a" * 5000, "no such file"),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(UserError, match=message) as error:
        given_names(text)
    assert len(str(error.value)) < 600


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "names").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="must be a text file"):
        given_names(str(tmp_path / "names"))
