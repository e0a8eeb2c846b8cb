"""Puts the parts of a run together: the data, the mesh of devices and the compiled steps."""

import contextlib
import copy
from collections.abc import Callable, Generator, Mapping
from typing import Any

import jax
from flax import linen as nn

from flax_resnets.data.batches import Batch, Split, steps_per_epoch
from flax_resnets.errors import UserError
from flax_resnets.fields import shown
from flax_resnets.training.amendments import Amendment
from flax_resnets.training.build import build_steps, check_own_functions, have_same_shapes
from flax_resnets.training.completion import completed
from flax_resnets.training.config import Config
from flax_resnets.training.display import Display
from flax_resnets.training.finetune import divided
from flax_resnets.training.network import make_model
from flax_resnets.training.placement import make_mesh, own_rows, to_devices
from flax_resnets.training.state import TrainState
from flax_resnets.training.timeline import Timeline

IMAGES, TRANSFER = "wait for images", "to devices"  # in a trace of the profiler


class Trainer:
    """The parts of a run that do not change while it trains. Several runs can share one trainer.

    Args:
        config: the run's configuration.
        train: training split.
        valid: validation split.
        num_classes: number of the network's outputs.
        display: shows the progress.
        model: the network; None for the one that the configuration names.
        pretrained: gives the weights that the run begins with, see `create_state`; None for random ones.
        amendment: the last one of an amended run; None if the run has none.

    Attributes:
        config: the run's configuration, with numbers for what it leaves to the data; see `completed`.
        num_classes: as above.
        mesh: mesh of all devices.
        parameters, frozen: number of the network's parameters, and of those that never train.
        timeline: which steps make up which epoch.
        steps_per_epoch, total_steps: number of training steps in an epoch, and in the run.
        steps: the compiled functions, see `flax_resnets.training.build.Steps`.

    Raises:
        UserError: the network does not accept images of this size, or a batch is larger than the training split.
    """

    def __init__(
        self,
        config: Config,
        train: Split,
        valid: Split,
        num_classes: int,
        display: Display,
        model: nn.Module | None = None,
        pretrained: Callable[[], Mapping[str, Any]] | None = None,
        amendment: Amendment | None = None,
    ):
        self.config = config = completed(config, train, num_classes, display=display)
        self.num_classes = num_classes
        self.train = train
        self.valid = valid
        self.display = display
        self.mesh = make_mesh(config.weight_shards)
        self.steps_per_epoch = steps_per_epoch(len(train), config.batch_size)
        past = (amendment.epoch, amendment.epoch_step) if amendment else ()
        self.timeline = Timeline(self.steps_per_epoch, *past)
        self.total_steps = self.timeline.end_of(config.epochs)
        if self.total_steps >= 2**31:  # the state counts them in an int32
            raise UserError(f"epochs={config.epochs}: must be at most {(2**31 - 1) // self.steps_per_epoch}")
        self._rows = own_rows(self.mesh, config.batch_size)
        self.model = model or make_model(config, num_classes)
        check_own_functions(config, num_classes, train.channels, valid.multilabel)
        begin = amendment.step if amendment else 0
        self.steps = build_steps(config, self.model, self.mesh, train.channels, self.timeline, begin)
        self._pretrained = pretrained
        params = self.steps.abstract_state.params
        still = divided(params, self.steps.plan.frozen)[1]
        self.parameters, self.frozen = (sum(leaf.size for leaf in jax.tree.leaves(each)) for each in (params, still))

    def remarks(self) -> list[str]:
        """What a user should know of the steps, a line each; empty if there is nothing to say."""
        lines, config = [], self.config
        if config.weights is None and (config.freeze or config.freeze_epochs):
            field = "freeze" if config.freeze else "freeze_epochs"
            lines.append(f"{field}={shown(getattr(config, field))}: what is frozen is random, without weights=SOURCE")
        if self.steps_per_epoch == 1:
            of_all = f", of {config.batch_size:,} of the {len(self.train):,} images"
            lines.append(f"an epoch has one step{of_all}; a smaller batch_size makes more")
        return lines

    def first_state(self) -> TrainState:
        """The state before the first step."""
        return self.steps.create_state(self._pretrained() if self._pretrained else None)

    def check_amendment(self, before: Config) -> None:
        """Raises UserError if the network had other parameters under the configuration before an amendment."""
        if not have_same_shapes(self.abstract_state_of(before).params, self.steps.abstract_state.params):
            raise UserError(
                f"--amend: with image_size={self.config.image_size}, {self.config.model} has other parameters; it "
                "takes images of one size"
            )

    def abstract_state_of(self, config: Config) -> TrainState:
        """Shapes, dtypes and placement of the state under another configuration of the same run."""
        model = make_model(config, self.num_classes)
        return build_steps(config, model, self.mesh, self.train.channels, Timeline(1)).abstract_state

    def with_steps(self, **steps: Any) -> "Trainer":
        """A copy of this trainer in which the named functions of `Steps` are replaced.

        Args:
            steps: the new functions, by the names of the attributes of `Steps`, such as `create_state`.
        """
        other = copy.copy(self)
        other.steps = self.steps._replace(**steps)
        return other

    def batches(self, steps: range) -> Generator[Batch[jax.Array]]:
        """The batches of these training steps, on the devices. Close the generator if you do not read it to the end."""
        config, shift = self.config, self.timeline.shift
        steps = range(steps.start - shift, steps.stop - shift)  # their places among epochs of this length
        order = config.batch_size, config.seed, steps, self._rows, config.sampler
        with contextlib.closing(self.train.train_batches(*order)) as batches:
            while True:
                with jax.profiler.TraceAnnotation(IMAGES):
                    batch = next(batches, None)
                if batch is None:
                    return
                with jax.profiler.TraceAnnotation(TRANSFER):
                    placed = to_devices(batch, self.mesh)
                yield placed
