"""Which steps make up which epoch of a run."""

from typing import NamedTuple


class Timeline(NamedTuple):
    """Which steps make up which epoch.

    An amendment may change the batch size, and with it the steps of the epochs after it. What a step computes depends
    on the step's number; which images it sees depends on its place in its epoch.

    Attributes:
        steps_per_epoch: steps of each epoch after `epoch`.
        epoch: the number of epochs before the first one with this many steps.
        step: the number of steps in those epochs.

    Example:
        >>> timeline = Timeline(steps_per_epoch=5, epoch=2, step=20)
        >>> timeline.end_of(3), timeline.place(26), timeline.place(25)
        (25, (3, 1), (3, 0))
    """

    steps_per_epoch: int
    epoch: int = 0
    step: int = 0

    def end_of(self, epoch: int) -> int:
        """The number of steps after which an epoch has ended; epochs are counted from 1."""
        return self.step + (epoch - self.epoch) * self.steps_per_epoch

    def place(self, step: int) -> tuple[int, int]:
        """After this many steps: the number of finished epochs, and of the steps since the last of them ended."""
        epochs, position = divmod(step - self.step, self.steps_per_epoch)
        return self.epoch + epochs, position

    @property
    def shift(self) -> int:
        """How many steps fewer the run would have taken if all its epochs had had this many."""
        return self.step - self.epoch * self.steps_per_epoch
