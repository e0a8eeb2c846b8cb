"""Saving and restoring: the latest two and the best are kept, and damage is noticed."""

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from flax_resnets.errors import UserError
from flax_resnets.training.checkpoints import Checkpoints
from flax_resnets.training.checksums import check_checksums
from flax_resnets.training.state import TrainState

ROOT = Path(__file__).parents[2]


def state_at(step: int) -> TrainState:
    return TrainState(
        step=jnp.int32(step),
        params={"layer": {"kernel": jnp.full((40, 50), step, jnp.float32)}},
        batch_stats={},
        opt_state=(jnp.int32(step), {"mu": jnp.arange(6, dtype=jnp.bfloat16)}),
        loss_scale=None,
        loss_sum=jnp.float32(0.5),
        loss_count=jnp.int32(0),
        skipped=jnp.int32(0),
        skipped_in_a_row=jnp.int32(0),
    )


LIKE = jax.eval_shape(lambda: state_at(0))


@pytest.fixture
def saved(tmp_path) -> Path:
    """Checkpoints of steps 1 to 5; step 2 is the best."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", lambda: [2])
    for step in range(1, 6):
        checkpoints.save(state_at(step))
        checkpoints.wait()
    checkpoints.close()
    return tmp_path / "checkpoints"


def restore(directory: Path, said: list[str] | None = None) -> TrainState | None:
    checkpoints = Checkpoints(directory, lambda: ())
    try:
        return checkpoints.restore(lambda _: LIKE, (said if said is not None else []).append)
    finally:
        checkpoints.close()


def test_the_latest_two_and_the_best_are_kept(saved):
    assert sorted(int(path.name) for path in saved.iterdir()) == [2, 4, 5]


def test_skipped_steps_do_not_push_out_those_from_before_them(tmp_path):
    directory = tmp_path / "checkpoints"
    for steps in (range(1, 6), range(6, 9)):  # and after a restart
        checkpoints = Checkpoints(directory, lambda: [1])
        for step in steps:
            checkpoints.save(state_at(step).replace(skipped_in_a_row=jnp.int32(max(0, step - 3))))
            checkpoints.wait()
        checkpoints.close()
    assert sorted(int(path.name) for path in directory.iterdir()) == [1, 2, 3, 7, 8]


def test_what_is_restored_is_what_was_saved(saved):
    restored = restore(saved)
    assert restored is not None
    jax.tree.map(np.testing.assert_array_equal, restored, state_at(5))
    assert [leaf.dtype for leaf in jax.tree.leaves(restored)] == [leaf.dtype for leaf in jax.tree.leaves(LIKE)]


def test_every_file_that_is_read_has_a_checksum(saved):
    for step in saved.iterdir():
        check_checksums(step)
        listed = {line.split()[1] for line in (step / "SHA256SUMS").read_text().splitlines()}
        files = {str(path.relative_to(step)) for path in step.rglob("*") if path.is_file()}
        assert files - listed == {"SHA256SUMS", "_CHECKPOINT_METADATA", "commit_success.txt"}


def test_nothing_saved_is_none(tmp_path):
    assert restore(tmp_path / "checkpoints") is None


def test_a_state_saved_while_it_is_donated_is_still_the_one_saved(tmp_path):
    """Saving continues while the next step overwrites the buffers of the saved state."""
    advance = jax.jit(lambda s: jax.tree.map(lambda leaf: leaf + 1, s), donate_argnums=0)
    checkpoints = Checkpoints(tmp_path / "checkpoints", lambda: ())
    state = state_at(1).replace(params={"kernel": jnp.zeros((2000, 1000))})
    like = jax.eval_shape(lambda: state)
    checkpoints.save(state)
    for _ in range(20):
        state = advance(state)
    checkpoints.wait()
    restored = checkpoints.restore(lambda _: like, pytest.fail)
    checkpoints.close()
    assert restored is not None
    assert not restored.params["kernel"].any()


def largest_file(directory: Path) -> Path:
    return max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(step: Path) -> None:
    path = largest_file(step / "state")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte(step: Path) -> None:
    path = largest_file(step / "state")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(step: Path) -> None:
    for path in step.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def remove_a_file(step: Path) -> None:
    largest_file(step / "state").unlink()


def remove_everything(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


def lose_its_proof(step: Path) -> None:
    shutil.rmtree(step / "proof")


DAMAGES = [truncate, flip_a_byte, empty, remove_a_file, remove_everything, lose_its_proof]


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_does_not_come_to_orbax(saved, monkeypatch, damage):
    """A changed byte used to end the process in a thread of TensorStore, before any error was raised."""
    read = []
    orbax = ocp.CheckpointManager.restore
    monkeypatch.setattr(
        ocp.CheckpointManager, "restore", lambda self, step, **how: read.append(step) or orbax(self, step, **how)
    )
    damage(saved / "5")
    restore(saved)
    # An empty directory has no checksums, and nothing else to read.
    assert read == ([5, 4] if damage is remove_everything else [4])


def test_a_checkpoint_of_an_earlier_version_has_no_checksums(saved):
    for step in saved.iterdir():
        (step / "SHA256SUMS").unlink()
    restored = restore(saved)
    assert restored is not None
    assert int(restored.step) == 5


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_one_is_set_aside_and_the_one_before_taken(saved, damage, listed):
    if not listed:
        (saved / "5" / "SHA256SUMS").unlink()
    damage(saved / "5")
    said: list[str] = []
    restored = restore(saved, said)
    assert restored is not None
    assert int(restored.step) == 4
    assert len(said) == 1
    assert said[0].startswith("checkpoint 5 is damaged (")
    assert (saved.parent / "damaged" / "5.0").is_dir()
    checkpoints = Checkpoints(saved, lambda: ())
    checkpoints.save(state_at(5))  # the step can be saved again
    checkpoints.close()
    assert int(restore(saved).step) == 5  # pyright: ignore[reportOptionalMemberAccess]


def test_with_none_left_it_refuses(saved):
    for path in list(saved.iterdir()):
        flip_a_byte(path)
    for _ in range(2):  # twice: the second start must not take an empty directory for a new run
        with pytest.raises(UserError, match="none of its checkpoints can be read"):
            restore(saved)
    assert len(list((saved.parent / "damaged").iterdir())) == 3  # nothing is deleted


@pytest.mark.parametrize("listed", [True, False])
def test_one_that_cannot_be_read_for_another_reason_stays(saved, monkeypatch, listed):
    def no_more_files(self, step, **how):
        raise OSError(errno.EMFILE, "Too many open files")

    if not listed:
        (saved / "5" / "SHA256SUMS").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "restore", no_more_files)
        with pytest.raises(UserError, match=r"checkpoints/5: cannot be read \(.*Too many open files.*the same command"):
            restore(saved)
    assert not (saved.parent / "damaged").exists()
    assert int(restore(saved).step) == 5  # pyright: ignore[reportOptionalMemberAccess]


def test_damage_that_another_process_finds_counts_here_too(saved, monkeypatch):
    found = iter(["state/d/0 is not what was written", ""])
    monkeypatch.setattr("flax_resnets.training.checkpoints.first_text", lambda text: text or next(found))
    said: list[str] = []
    assert int(restore(saved, said).step) == 4  # pyright: ignore[reportOptionalMemberAccess]
    assert said[0].startswith("checkpoint 5 is damaged (state/d/0 is not what was written)")


def test_a_state_of_another_tree_is_no_damage(saved):
    other = LIKE.replace(params={"layer": {"weight": LIKE.params["layer"]["kernel"]}})
    checkpoints = Checkpoints(saved, lambda: ())
    with pytest.raises(UserError, match="checkpoints/5: cannot be read"):
        checkpoints.restore(lambda _: other, lambda _: None)
    checkpoints.close()
    assert not (saved.parent / "damaged").exists()


def test_a_checkpoint_of_another_shape_or_dtype_does_not_pass(saved):
    other = LIKE.replace(params={"layer": {"kernel": jax.ShapeDtypeStruct((40, 50), jnp.bfloat16)}})
    checkpoints = Checkpoints(saved, lambda: ())
    with pytest.raises(UserError, match="none of its checkpoints can be read"):
        checkpoints.restore(lambda _: other, lambda _: None)
    checkpoints.close()


START = """
import os, resource, shutil, sys
from pathlib import Path
import jax
import numpy as np
from flax_resnets.training.checkpoints import Checkpoints
from tests.training.test_checkpoints import state_at

directory = Path(sys.argv[1])
checkpoints = Checkpoints(directory, lambda: ())
"""
GONE = """
shutil.rmtree(directory.parent)
directory.parent.write_text("")
try:
    checkpoints.save(state_at(1))
    checkpoints.close()
except OSError as error:
    print(error)
"""
FULL = """
random = np.random.default_rng(0)
noise = {str(n): jax.device_put(random.normal(size=(60, 100 + n)).astype(np.float32)) for n in range(40)}
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
for step in (1, 2, 3):
    try:
        checkpoints.save(state_at(step).replace(params=noise))
        checkpoints.wait()
    except OSError as error:
        print(error.strerror)
"""
NOT_DONE = """
import orbax.checkpoint
from orbax.checkpoint._src.serialization import serialization

MIDDLE = '''
class Waits:
    def __await__(self):
        yield

async def FUNCTION():
    try:
        await Waits()
    finally:
        await Waits()

FUNCTION().send(None)
'''

async def of_a_callback():
    pass

serialization.async_serialize_from_host(None, {})
of_a_callback()
exec(compile(MIDDLE.replace("FUNCTION", "of_orbax"), orbax.checkpoint.__file__, "exec"))
exec(compile(MIDDLE.replace("FUNCTION", "of_an_observer"), "observer.py", "exec"))
"""
# Ends like train.py: after a failed save Python would wait for minutes for Orbax's threads.
END = "sys.stdout.flush(); os._exit(0)"


def in_a_process(code: str, directory: Path) -> tuple[str, str]:
    command = [sys.executable, "-c", START + code + END, directory]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0
    return done.stdout, done.stderr


def test_a_directory_that_is_gone_is_an_error_of_the_system(tmp_path):
    directory = tmp_path / "run" / "checkpoints"
    out, err = in_a_process(GONE, directory)
    assert err == ""
    assert out.endswith(f": '{directory}'\n")


def test_a_save_that_fails_is_told_of_once_and_leaves_nothing(tmp_path):
    directory = tmp_path / "checkpoints"
    assert in_a_process(FULL, directory) == (3 * "File too large\n", "")
    assert list(directory.iterdir()) == []


def test_writes_that_a_failed_one_kept_from_beginning_or_ending_are_not_told_of(tmp_path):
    _, err = in_a_process(NOT_DONE, tmp_path / "checkpoints")
    # What is not Orbax's still is.
    assert "'of_a_callback' was never awaited" in err
    assert "<coroutine object of_an_observer" in err
    assert "async_serialize" not in err
    assert "of_orbax" not in err
