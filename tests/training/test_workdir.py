"""The directory of a run, and directories of something else."""

import dataclasses
import os
from pathlib import Path

import pytest

from flax_resnets import storage
from flax_resnets.errors import UserError
from flax_resnets.training.workdir import check_workdir, opened


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        (lambda d, _: d.write_text(""), "is a file; name a directory"),
        (lambda d, _: (d / "checkpoints").mkdir(parents=True), "has checkpoints and no config.json"),
        (lambda d, _: d.mkdir() or (d / "config.json").write_text("{"), "is no run's configuration"),
        (lambda d, _: d.mkdir() or (d / "config.json").write_text("[]"), "is no run's configuration"),
        (
            lambda d, _: d.mkdir() or (d / "config.json").write_text('{"a": 1}'),
            "no run's configuration (it has no model",
        ),
        (
            lambda d, config: (
                d.mkdir()
                or (d / "config.json").write_text(dataclasses.replace(config, seed=7, model="other").to_json())
            ),
            "holds another run, with model=other (now two stages, see make_trainer), seed=7 (now 0); pick another",
        ),
    ],
)
def test_a_workdir_of_something_else_is_refused(config, tmp_path, setup, message):
    workdir = tmp_path / "workdir"
    setup(workdir, config)
    with pytest.raises(UserError) as caught:
        check_workdir(config, workdir)
    assert message in str(caught.value)


def test_the_folder_of_pictures_is_no_workdir(config, tmp_path):
    (tmp_path / "photos").mkdir()
    config = dataclasses.replace(config, dataset="folder", data_dir=str(tmp_path / "photos"))
    with pytest.raises(UserError, match="holds the pictures, among which the run's files would be; pick another"):
        check_workdir(config, tmp_path / "." / "photos")


def test_a_place_that_cannot_be_written_is_named_before_the_data_are_read(config):
    with pytest.raises(UserError, match=r"^workdir=/proc/sys/a/b: /proc/sys is no directory that can be written"):
        check_workdir(config, Path("/proc/sys/a/b"))


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints"])
def test_a_run_that_may_not_be_read_is_a_users_mistake(config, tmp_path, monkeypatch, name):
    """Such as that of another user."""
    (tmp_path / "config.json").write_text(config.to_json())

    def forbidden(call):
        def checked(path, *arguments):
            if Path(path).name == name:
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *arguments)

        return checked

    monkeypatch.setattr(storage, "read", forbidden(storage.read))
    monkeypatch.setattr(storage, "names", forbidden(storage.names))
    for _ in range(2):
        with pytest.raises(UserError, match=f"{name}: Permission denied"):
            check_workdir(dataclasses.replace(config, epochs=9), tmp_path)


def test_a_workdir_of_this_run_is_welcome(config, tmp_path):
    check_workdir(config, tmp_path / "not there yet")
    check_workdir(config, tmp_path)
    (tmp_path / "config.json").write_text(dataclasses.replace(config, data_dir="elsewhere").to_json())
    check_workdir(config, tmp_path)


def test_killed_while_it_opens_its_workdir_it_still_knows_it(config, tmp_path, monkeypatch):
    """`config.json` is written at each start. After a kill or on a full disk it must still be complete."""
    with opened(config, tmp_path):
        pass
    before = (tmp_path / "config.json").read_text()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", killed)
        with pytest.raises(KeyboardInterrupt), opened(config, tmp_path):
            pass
    assert (tmp_path / "config.json").read_text() == before


def begin(config, workdir, error: Exception, *made: str) -> None:
    """A run that makes these directories and a file in its workdir, and then fails."""

    def fit() -> None:
        for name in made:
            (workdir / name).mkdir(parents=True)
        (workdir / "metrics.jsonl").touch()
        raise error

    with pytest.raises(type(error)), opened(config, workdir):
        fit()


def test_a_run_that_cannot_be_leaves_nothing(config, tmp_path):
    begin(config, tmp_path / "new", UserError("too large"), "checkpoints", "tensorboard")
    assert not (tmp_path / "new").exists()
    (tmp_path / "theirs" / "tensorboard").mkdir(parents=True)
    (tmp_path / "theirs" / "notes").touch()
    begin(config, tmp_path / "theirs", UserError("too large"), "checkpoints")
    assert {path.name for path in (tmp_path / "theirs").iterdir()} == {"tensorboard", "notes"}


def test_what_is_saved_or_was_begun_before_stays(config, tmp_path):
    begin(config, tmp_path / "saved", UserError("a broken image"), "checkpoints/7")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"checkpoints", "config.json", "metrics.jsonl"}
    begin(config, tmp_path / "begun", RuntimeError("a bug"))
    begin(config, tmp_path / "begun", UserError("a full disk"))
    assert {path.name for path in (tmp_path / "begun").iterdir()} == {"config.json", "metrics.jsonl"}


def test_what_ended_before_its_first_row_and_checkpoint_is_in_nobodys_way(config, tmp_path):
    """The run was killed in its first epoch, or diverged in it with an earlier version."""
    with opened(config, tmp_path):
        (tmp_path / "metrics.jsonl").touch()
        (tmp_path / "checkpoints").mkdir()
    other = dataclasses.replace(config, learning_rate=1e-5)
    check_workdir(other, tmp_path)
    (tmp_path / "checkpoints" / "7").mkdir()
    with pytest.raises(UserError, match=r"holds another run, with learning_rate=0\.01 \(now 1e-05\)"):
        check_workdir(other, tmp_path)


def test_a_run_without_a_checkpoint_is_not_said_to_be_amendable(config, tmp_path):
    """It was killed while its first state was made: `--amend` would say that there is nothing to amend."""
    (tmp_path / "config.json").write_text(config.to_json())
    with pytest.raises(UserError, match=r"now 9\); pick another workdir, or remove this one: it has no checkpoint$"):
        check_workdir(dataclasses.replace(config, epochs=9), tmp_path)
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    with pytest.raises(UserError, match=r"now 9\); --amend goes on with it .*; or pick another workdir$"):
        check_workdir(dataclasses.replace(config, epochs=9), tmp_path)


def test_a_name_that_is_not_utf8_is_refused_before_anything_is_made(config, tmp_path):
    workdir = Path(os.fsdecode(os.fsencode(tmp_path) + b"/run\xff"))
    with pytest.raises(UserError, match=r"run\\udcff: is not UTF-8, as checkpoints need it; pick another workdir"):
        check_workdir(config, workdir)
