"""Which epoch of a run is the best: the field that says by what, and the order of a run's epochs."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from flax_resnets.fields import Fields

if TYPE_CHECKING:
    from flax_resnets.training.metrics import EpochMetrics

BestBy = Literal["accuracy", "loss", "metric"]


@dataclass(frozen=True, kw_only=True)
class BestConfig(Fields):
    """Which epoch counts as the best one.

    Attributes:
        best_by: `accuracy`: the epoch with the highest accuracy on the validation images; if an image may have any
            number of classes, that with the highest mean average precision. `loss`: the epoch with the lowest
            validation loss, whose probabilities are the most trustworthy. `metric`: the epoch with the highest mean of
            the recipe's own metric. Of equal epochs the first is the best. Its checkpoint is kept, `load_classifier`
            and `weights` take it, and the last row of `metrics.jsonl` names it.
    """

    best_by: BestBy = "accuracy"


def best_by_of(config: Mapping[str, Any]) -> BestBy:
    """The `best_by` of a run's `config.json`, which an earlier version did not write.

    Raises:
        UserError: it is of another type, or none of those there are.
    """
    return BestConfig(best_by=config.get("best_by", "accuracy")).best_by


def score(row: "EpochMetrics", best_by: BestBy) -> float:
    """The number by which an epoch is judged; the higher the better. One that is not finite is the worst.

    Args:
        row: the epoch's figures.
        best_by: see `BestConfig`.
    """
    if best_by in ("loss", "metric"):
        figure = -row.valid_loss if best_by == "loss" else row.metric
        # An amendment may have added the metric.
        return -math.inf if figure is None or not math.isfinite(figure) else figure
    return row.accuracy if row.mean_average_precision is None else row.mean_average_precision


def best_first(rows: Iterable["EpochMetrics"], best_by: BestBy) -> list["EpochMetrics"]:
    """The rows in order of their `score`, the best first; of equal ones, the earlier first.

    Args:
        rows: of epochs.
        best_by: see `BestConfig`.
    """
    return sorted(rows, key=lambda row: (-score(row, best_by), row.epoch))


def best_of(rows: Iterable["EpochMetrics"], best_by: BestBy) -> "EpochMetrics | None":
    """The best row; None if there are none. For the arguments see `best_first`."""
    return next(iter(best_first(rows, best_by)), None)


def in_words(row: "EpochMetrics", best_by: BestBy) -> str:
    """By what an epoch is judged, such as `accuracy 0.9130`, or `validation loss 0.2817 (accuracy 0.9130)`."""
    accuracy, name = row.accuracy, "accuracy"
    if row.mean_average_precision is not None:
        accuracy, name = row.mean_average_precision, "mean average precision"
    text = f"{name} {accuracy:.4f}"
    if best_by == "metric":
        return f"metric {math.nan if row.metric is None else row.metric:.4f} ({text})"
    return f"validation loss {row.valid_loss:.4f} ({text})" if best_by == "loss" else text
