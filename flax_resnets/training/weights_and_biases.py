"""Sends a run's figures to Weights & Biases (wandb)."""

import importlib.util
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flax_resnets import storage
from flax_resnets.errors import UserError
from flax_resnets.training.atomic import write_whole
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.metrics import EpochMetrics
from flax_resnets.training.processes import is_first
from flax_resnets.training.step import StepOutput

if TYPE_CHECKING:
    from flax_resnets.training.loop import Run

FILE = "wandb.json"
_PATIENCE = 30  # seconds for which the server may be silent before a run is recorded offline


class WandB(Callback):
    """Records a run in Weights & Biases. The field `wandb` of a configuration adds it.

    It sends the configuration, the figures of a step every `log_every` steps, each epoch's row, and at the end what the
    last row of `metrics.jsonl` has. The figures have the names that they have in TensorBoard, and are drawn over the
    number of steps, `step`. A run that resumes goes on with its W&B run, whose id is in `wandb.json` in the workdir.

    Without a login or a connection it writes the files of an offline run into `wandb/` in the workdir, and says so.
    `wandb sync` sends them later. The environment variables of wandb, such as `WANDB_MODE`, are heeded.

    Args:
        project: the project's name in W&B.
        init: further arguments of `wandb.init`, such as `entity`, `name`, `group` or `tags`.

    Raises:
        UserError: wandb is not installed.

    Example:
        >>> from flax_resnets.training import load_config, run
        >>> run(load_config("quickstart"), "runs/quickstart", [WandB("shoes", tags=["small"])])  # doctest: +SKIP
    """

    def __init__(self, project: str, **init: Any):
        if importlib.util.find_spec("wandb") is None:
            raise UserError(f"wandb={project}: needs wandb, which `pip install 'flax_resnets[wandb]'` installs")
        self._project, self._init = project, init
        self._run: Any = None
        self._is_done = False

    def on_run_begin(self, run: "Run") -> None:
        """Begins the W&B run, or goes on with it."""
        if not is_first():
            return
        import wandb  # pyright: ignore[reportMissingImports]  # an extra

        arguments = {
            "project": self._project,
            "id": _id_of(run.workdir),
            "resume": "allow",
            "reinit": "create_new",  # leaves other W&B runs of this program as they are
            "config": json.loads(run.config.to_json()),
            "allow_val_change": True,
            "dir": None if storage.is_bucket(run.workdir) else str(run.workdir),  # it cannot write to a bucket
            # The capture of the console would replace sys.stdout.
            "settings": wandb.Settings(console="off", silent=True, init_timeout=_PATIENCE),
            **self._init,
        }
        problem = "" if "mode" in arguments or "WANDB_MODE" in os.environ else "not logged in"
        try:
            if not problem or wandb.login(prompt=False, verify=False):
                self._run, problem = wandb.init(**arguments), ""
        except wandb.errors.CommError as error:  # pyright: ignore[reportAttributeAccessIssue]  # a lazy module
            problem = " ".join(str(error).split())[:200]
        if problem:
            self._run = wandb.init(**{**arguments, "mode": "offline"})
        if self._run.offline:
            why = f" ({problem})" if problem else ""
            run.trainer.display.say(
                f"wandb={self._project}: offline{why}; `wandb sync {Path(self._run.dir).parent}` sends the run"
            )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def on_step_end(self, run: "Run", step: int, output: StepOutput) -> None:
        """Records a step's figures."""
        if self._run is not None and step % run.config.log_every == 0:
            names = ("loss", "learning_rate", "momentum")
            self._run.log({"step": step, **{f"step/{name}": float(getattr(output, name)) for name in names}})

    def on_epoch_end(self, run: "Run", row: EpochMetrics) -> None:
        """Records an epoch's row."""
        if self._run is not None:
            figures = row.as_row()
            self._run.log({"step": figures.pop("step"), **{f"epoch/{name}": value for name, value in figures.items()}})

    def on_run_end(self, run: "Run") -> None:
        """Records what the last row of `metrics.jsonl` has."""
        self._is_done = True
        if self._run is not None:
            self._run.summary.update(run.done)

    def close(self) -> None:
        """Ends the W&B run; one that is not done is marked as failed until it goes on."""
        if self._run is not None:
            self._run.finish(exit_code=0 if self._is_done else 1)
            self._run = None


def _id_of(workdir: Path) -> str:
    """The id of the workdir's W&B run, which is made at the first call."""
    path = workdir / FILE
    content = storage.read(path)
    if content is None:
        made = secrets.token_hex(4)
        write_whole(path, (json.dumps({"id": made}) + "\n").encode())
        return made
    try:
        return str(json.loads(content)["id"])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: has no id of a W&B run ({error}); remove it to begin a new one") from None
