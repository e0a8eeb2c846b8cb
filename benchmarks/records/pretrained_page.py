"""Writes the table of docs/pretrained.md from flax_resnets/models/pretrained.csv.

    python -m benchmarks.records.pretrained_page

The prose of the page stands in the page itself.
"""

from pathlib import Path

from benchmarks.records.pages import with_generated
from flax_resnets.models.pretrained import Pretrained, pretrained_weights

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pretrained.md"
_HEAD = "| name | classes | trained at | evaluated at | top-1 | top-5 | licence |\n|---|---:|---:|---:|---:|---:|---|"


def table() -> str:
    """The most accurate first; those without a figure last, in the order of `list_models`."""
    ordered = sorted(pretrained_weights().values(), key=lambda weights: -(weights.top1 or 0))
    return "\n".join([_HEAD, *map(_row, ordered)])


def _row(weights: Pretrained) -> str:
    accuracies = (f"{percent:.2f}" if percent else "" for percent in (weights.top1, weights.top5))
    sizes = f"{weights.size} px", f"{weights.test_size} px, crop {weights.test_crop_pct:.3g}"
    return f"| {' | '.join([f'`{weights.name}`', f'{weights.num_classes:,}', *sizes, *accuracies, weights.licence])} |"


if __name__ == "__main__":
    PAGE.write_text(with_generated(PAGE, table()))
