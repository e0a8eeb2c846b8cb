"""A run's pieces put together: the data, the mesh and the compiled steps."""

import contextlib
import copy
from collections.abc import Generator
from typing import Any

import jax
from flax import linen as nn

from flax_resnets.data.batches import Batch, Split, steps_per_epoch
from flax_resnets.errors import UserError
from flax_resnets.training.build import build_steps
from flax_resnets.training.config import Config
from flax_resnets.training.display import Display
from flax_resnets.training.network import make_model
from flax_resnets.training.placement import make_mesh, own_rows, to_devices


class Trainer:
    """What a run is made of. It holds nothing that changes, so one trainer serves several runs.

    Args:
        config: the run.
        train: training split.
        valid: validation split.
        num_classes: outputs of the network.
        display: where progress is shown.
        model: the network; None for the one that the configuration names.

    Attributes:
        mesh: of all devices.
        parameters: how many the network has.
        steps_per_epoch, total_steps: how long the run is.
        steps: what it computes.

    Raises:
        UserError: the network does not take such images, or there are fewer of them than a batch.
    """

    def __init__(
        self,
        config: Config,
        train: Split,
        valid: Split,
        num_classes: int,
        display: Display,
        model: nn.Module | None = None,
    ):
        self.config = config
        self.train = train
        self.valid = valid
        self.display = display
        self.mesh = make_mesh(config.weight_shards)
        self.steps_per_epoch = steps_per_epoch(len(train), config.batch_size)
        self.total_steps = config.epochs * self.steps_per_epoch
        if self.total_steps >= 2**31:  # the state counts them in an int32
            raise UserError(f"epochs={config.epochs}: must be at most {(2**31 - 1) // self.steps_per_epoch}")
        self._rows = own_rows(self.mesh, config.batch_size)
        model = model or make_model(config, num_classes)
        self.steps = build_steps(config, model, self.mesh, train.channels, self.total_steps)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(self.steps.abstract_state.params))

    def with_steps(self, **steps: Any) -> "Trainer":
        """A trainer that computes something else in place of the named `Steps`, and the rest as this one.

        Args:
            steps: functions by the names of `Steps`'s attributes, such as `create_state`.
        """
        other = copy.copy(self)
        other.steps = self.steps._replace(**steps)
        return other

    def batches(self, steps: range) -> Generator[Batch[jax.Array]]:
        """What training steps see, on the devices. To be closed if not read to the end."""
        config = self.config
        with contextlib.closing(self.train.train_batches(config.batch_size, config.seed, steps, self._rows)) as batches:
            for batch in batches:
                yield to_devices(batch, self.mesh)
