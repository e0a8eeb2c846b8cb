"""Records in a run's workdir on which machine it runs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from flax_resnets import storage
from flax_resnets.machine import describe_machine, library_versions
from flax_resnets.training.atomic import write_whole
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.devices import devices_in_words

if TYPE_CHECKING:
    from flax_resnets.training.loop import Run

FILE = "machine.json"


class MachineRecord(Callback):
    """Writes `machine.json` in the workdir: CPU, cores, system, Python, JAX's devices, and versions of libraries.

    It is of the machine on which the run was last started. If that is another one than before, `earlier` lists the
    others, each with the step `until` which it trained.
    """

    def on_run_begin(self, run: "Run") -> None:
        """Writes the file, unless it says the same already."""
        record_machine(run.workdir, int(run.state.step))


def record_machine(workdir: Path, step: int) -> None:
    """Writes `machine.json` for a run that starts at a step."""
    here = {**describe_machine(), "devices": devices_in_words(), "versions": library_versions()}
    try:
        before = json.loads(storage.read(workdir / FILE) or b"{}") if step else {}
        earlier = [*before.pop("earlier", [])]
    except (ValueError, AttributeError, TypeError):  # it decides nothing: a damaged one is written anew
        before, earlier = {}, []
    if before == here:
        return
    if before:
        here["earlier"] = [*earlier, before | {"until": step}]
    write_whole(workdir / FILE, (json.dumps(here, indent=2) + "\n").encode())
