"""A run in a bucket: the same files and the same bits as on a disk, and what is promised when something fails."""

import contextlib
import dataclasses
import gc
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flax_resnets import storage
from flax_resnets.errors import UserError
from flax_resnets.training import lease
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.checkpoints import Checkpoints
from flax_resnets.training.loop import Stopped, fit
from flax_resnets.training.workdir import check_workdir, opened


def place(name: str) -> Path:
    return storage.bucket_path(f"gs://bucket/{name}", "workdir")


def rows(workdir: Path) -> list[dict]:
    """The rows of a run without measured times."""
    read = [json.loads(line) for line in storage.content(workdir / "metrics.jsonl").decode().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in read]


def copy_of(workdir: Path, name: str) -> Path:
    for file in storage.files(workdir):
        storage.write(place(name) / file, storage.content(workdir / file))
    return place(name)


class StopAt(Callback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, run, step, output):
        if step == self.step:
            run.stop.ask("the test")


@pytest.fixture(scope="module")
def on_disk(make_trainer, config, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "unbroken"
    workdir.mkdir()
    fit(make_trainer(config), workdir)
    return workdir


@pytest.fixture(scope="module")
def in_bucket(make_trainer, config, emulator) -> Path:
    """A run that was stopped in its second epoch, and resumed."""
    workdir = place("runs/unbroken")
    with opened(config, workdir), pytest.raises(Stopped):
        fit(make_trainer(config), workdir, callbacks=[StopAt(8)])
    with opened(config, workdir):
        fit(make_trainer(config), workdir)
    return workdir


@pytest.mark.usefixtures("no_pictures")
def test_it_resumes_and_ends_in_the_same_bits_as_on_a_disk(in_bucket, on_disk):
    assert rows(in_bucket) == rows(on_disk)
    assert storage.names(in_bucket) == {"config.json", *os.listdir(on_disk)}
    assert storage.names(in_bucket / "checkpoints") == {"12", "18"}
    assert storage.content(in_bucket / "curves.png").startswith(b"\x89PNG")
    assert len(storage.names(in_bucket / "tensorboard")) == 2
    assert not Path("gs:").exists()


def test_copied_to_a_disk_it_goes_on_there(make_trainer, config, in_bucket, on_disk, tmp_path):
    for name in storage.files(in_bucket):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(storage.content(in_bucket / name))
    shutil.rmtree(tmp_path / "checkpoints" / "18")
    fit(make_trainer(config), tmp_path)
    assert rows(tmp_path) == rows(on_disk)


def test_done_it_says_so(make_trainer, config, in_bucket, capsys):
    fit(make_trainer(config), in_bucket)
    assert "gs://bucket/runs/unbroken: already done" in capsys.readouterr().out


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("damage", ["changed", "missing", "cut"])
def test_a_damaged_checkpoint_is_set_aside(make_trainer, config, in_bucket, on_disk, capsys, damage):
    workdir = copy_of(in_bucket, f"runs/{damage}")
    newest = workdir / "checkpoints" / "18"
    largest = max((stored.size, name) for name, stored in storage.files(newest).items())[1]
    content = storage.content(newest / largest)
    if damage == "missing":
        storage.remove(newest / largest)
    else:
        storage.write(newest / largest, content[:99] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    fit(make_trainer(config), workdir)
    what = "missing" if damage == "missing" else "not what was written"
    assert f"checkpoint 18 is damaged ({largest} is {what})" in capsys.readouterr().out
    assert storage.names(workdir / "damaged") == {"18.0"}
    assert rows(workdir) == rows(on_disk)


def test_a_checkpoint_that_was_not_finished_is_not_read(make_trainer, config, in_bucket, on_disk):
    """A kill leaves a checkpoint in a bucket under its final name; its last file tells that it is complete."""
    workdir = copy_of(in_bucket, "runs/unfinished")
    storage.remove(workdir / "checkpoints" / "18" / "commit_success.txt")
    fit(make_trainer(config), workdir)
    assert storage.names(workdir / "damaged") is None
    assert rows(workdir) == rows(on_disk)


def test_a_bucket_that_fails_is_no_damage(make_trainer, config, in_bucket, monkeypatch):
    workdir = copy_of(in_bucket, "runs/failing")

    def fails(*_: object) -> bytes:
        raise storage.BucketError(5, "the bucket did not answer", "gs://bucket/x")

    monkeypatch.setattr(storage, "content", fails)
    with pytest.raises(storage.BucketError):
        fit(make_trainer(config), workdir)
    assert storage.names(workdir / "damaged") is None
    assert storage.names(workdir / "checkpoints") == {"12", "18"}


def test_arrays_that_cannot_be_read_are_no_damage(make_trainer, config, in_bucket, monkeypatch):
    def fails(*_: object, **__: object) -> None:
        raise ValueError("UNAVAILABLE: Error reading")

    workdir = copy_of(in_bucket, "runs/unavailable")
    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.restore", fails)
    with pytest.raises(storage.BucketError, match="cannot be read: UNAVAILABLE: Error reading"):
        fit(make_trainer(config), workdir)
    assert storage.names(workdir / "damaged") is None


def test_a_checkpoint_that_cannot_be_written_is_told(make_trainer, config, faults):
    state = make_trainer(config).steps.create_state()
    faults.read_only = True
    with (
        pytest.raises(storage.BucketError, match=r"cannot be saved: .*gs://bucket/runs/unwritten/checkpoints"),
        contextlib.closing(Checkpoints(place("runs/unwritten/checkpoints"), lambda: ())) as checkpoints,
    ):
        checkpoints.save(state)


def test_old_checkpoints_are_removed_and_no_others(make_trainer, config, emulator):
    """In a bucket the name of step 1 is the beginning of the name of step 12."""
    state = make_trainer(config).steps.create_state()
    checkpoints = Checkpoints(place("runs/steps/checkpoints"), lambda: [12])
    for step in (1, 12, 13, 14):
        checkpoints.save(state.replace(step=state.step + step))
    checkpoints.close()
    assert storage.names(place("runs/steps/checkpoints")) == {"12", "13", "14"}
    assert [int(checkpoints._read(step, state).step) for step in (12, 13, 14)] == [12, 13, 14]


def test_a_run_of_other_settings_is_refused(config, in_bucket):
    with pytest.raises(UserError, match="workdir=gs://bucket/runs/unbroken: holds another run, with seed=0"):
        check_workdir(dataclasses.replace(config, seed=1), in_bucket)


def test_an_object_of_the_workdirs_name_is_refused(config, emulator):
    storage.write(place("a file"), b"")
    with pytest.raises(UserError, match="workdir=gs://bucket/a file: is a file; name a directory"):
        check_workdir(config, place("a file"))


def test_a_run_that_cannot_begin_leaves_nothing(config, emulator):
    with pytest.raises(UserError, match="nothing comes of it"), opened(config, place("runs/none")):
        raise UserError("nothing comes of it")
    assert storage.names(place("runs/none")) is None


def test_without_permission_to_write_it_is_refused(config, faults):
    faults.read_only = True
    with (
        pytest.raises(UserError, match="workdir=gs://bucket/runs/none: the bucket refuses it: 403"),
        opened(config, place("runs/none")),
    ):
        pass


# --- the lock


@pytest.fixture
def quick(monkeypatch):
    """A lock that expires in a second."""
    for name, seconds in {"_BEAT": 0.1, "_EXPIRY": 1.0, "_POLL": 0.05}.items():
        monkeypatch.setattr(lease, name, seconds)


def test_a_second_start_is_refused(config, emulator, quick):
    workdir = place("locks/two")
    with (
        opened(config, workdir),
        pytest.raises(UserError, match="another process is training in it"),
        opened(config, workdir),
    ):
        pass
    with opened(config, workdir):
        pass


@pytest.fixture
def elsewhere(monkeypatch):
    """This process is taken for one of another machine by whoever looks at its lock."""
    monkeypatch.setattr(lease, "_machine", lambda: (os.urandom(8).hex(), 0))


def test_a_start_on_another_machine_is_refused(config, emulator, quick, elsewhere, capsys):
    workdir = place("locks/machines")
    with (
        opened(config, workdir),
        pytest.raises(UserError, match="another process is training in it"),
        opened(config, workdir),
    ):
        pass
    assert "if it is not heard of for 1 s, its lock is taken over" in capsys.readouterr().out


def test_a_lock_expires(config, emulator, quick, elsewhere, capsys):
    workdir = place("locks/expired")
    storage.write(workdir / lease.NAME, json.dumps(lease._myself()).encode())
    with opened(config, workdir):
        pass
    assert "has expired and is taken over" in capsys.readouterr().out
    assert storage.names(workdir) == {"config.json"}


def test_the_lock_of_a_killed_process_is_taken_at_once(config, emulator, capsys):
    workdir = place("locks/killed")
    code = "import json; from flax_resnets.training import lease; print(json.dumps(lease._myself()))"
    owner = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    storage.write(workdir / lease.NAME, owner)
    with opened(config, workdir):
        pass
    assert "is taken over, because that process has ended" in capsys.readouterr().out


@pytest.mark.usefixtures("no_pictures")
def test_a_damaged_lock_expires(config, emulator, quick, capsys):
    workdir = place("locks/damaged")
    storage.write(workdir / lease.NAME, b"[]")
    with opened(config, workdir):
        pass
    assert "an unknown process has expired" in capsys.readouterr().out


def test_who_has_lost_the_lock_writes_nothing_more(make_trainer, config, emulator, quick):
    workdir = place("locks/lost")
    with opened(config, workdir):
        held = lease._held[str(workdir)]
        storage.write(workdir / lease.NAME, b"{}")
        held._thread.join(5)
        before = storage.files(workdir)
        with pytest.raises(OSError, match="another start has taken over"):
            fit(make_trainer(config), workdir)
        assert storage.files(workdir) == before
    assert storage.content(workdir / lease.NAME) == b"{}"


def test_who_was_not_heard_of_asks_before_it_writes(config, emulator, monkeypatch):
    """As after a machine was suspended: the thread that writes the lock may come later than the next checkpoint."""
    monkeypatch.setattr(lease, "_EXPIRY", -1.0)
    workdir = place("locks/suspended")
    with opened(config, workdir):
        before = storage.files(workdir)[lease.NAME].generation
        lease.check_held(workdir / "checkpoints")
        assert storage.files(workdir)[lease.NAME].generation > before
        storage.write(workdir / lease.NAME, b"{}")
        with pytest.raises(OSError, match="another start has taken over"):
            lease.check_held(workdir / "checkpoints")


def test_a_bucket_that_fails_for_a_while_costs_no_lock(config, faults, quick):
    faults.refused = 1.0
    threading.Timer(0.5, lambda: setattr(faults, "refused", 0.0)).start()
    workdir = place("locks/while")
    with opened(config, workdir):
        pass


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.slow  # its faults come at random, so now and then it takes many retries
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of a client whose connection was cut
def test_a_run_with_a_bucket_that_fails_now_and_then(make_trainer, config, on_disk, faults, monkeypatch):
    monkeypatch.setattr("google.cloud.storage.retry.DEFAULT_RETRY._initial", 0.01)
    workdir = place("runs/flaky")
    faults.refused, faults.cut = 0.02, 0.02
    with opened(config, workdir):
        fit(make_trainer(config), workdir)
    faults.refused = faults.cut = 0.0
    assert rows(workdir) == rows(on_disk)
    gc.collect()  # here, where the warning is ignored


def test_a_bucket_that_is_gone_ends_the_run(make_trainer, config, faults, monkeypatch):
    class Gone(Callback):
        def on_epoch_end(self, run, row):
            faults.status = 403

    with (
        pytest.raises(storage.BucketError, match="403, as it was told to: 'gs://bucket/runs/gone/"),
        opened(config, place("runs/gone")),
    ):
        fit(make_trainer(config), place("runs/gone"), callbacks=[Gone()])
