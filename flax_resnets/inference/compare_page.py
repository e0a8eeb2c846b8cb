"""The page of a comparison: tables of results, differences and settings, overlaid curves."""

import datetime
from collections.abc import Mapping, Sequence

from flax_resnets import __version__
from flax_resnets.inference.charts import Line, line_chart
from flax_resnets.inference.compare import Comparison, Group, Member
from flax_resnets.inference.page import Html, charts, element, joined, page, table
from flax_resnets.inference.paired import Interval
from flax_resnets.training.best import score

DIFFERENCE_COLUMNS = ("difference", "over images", "over seeds", "p")

METHODS = (
    "Accuracies are in per cent, after the last finished epoch, with the standard deviation over the seeds; "
    "differences are in points. Best is the highest accuracy of the runs' best epochs. If an image may have several "
    "classes, mean average precision (mAP) takes the accuracy's place, and accuracy is the share of right decisions.",
    "Over images: the 95 % interval of Bonett and Price (2012) for paired shares, on the same validation images; it "
    "covers the choice of the images, not that of the seeds.",
    "Over seeds: Welch's 95 % t interval of the means; it needs two seeds in each group.",
    "p: Welch's, or for single runs that of McNemar's exact test on the images that only one of the two predicts "
    "right. A difference whose p is above 0.05 may be chance. With many groups some p are below 0.05 by chance.",
)
"""How the figures are computed, a sentence or two each."""


def comparison_page(comparison: Comparison) -> str:
    """A comparison as an HTML page that is one file."""
    base = comparison.differences[0].base.label
    sections = [
        ("Results", _results(comparison)),
        (f"Differences from {base}", _differences(comparison)),
        ("Settings that differ", _settings(comparison)),
        ("Curves", _curves(comparison)),
        ("Runs", _runs(comparison)),
    ]
    names = ", ".join(group.label for group in comparison.groups)
    return page(
        f"Comparison of {len(comparison.members)} runs",
        names,
        [(title, content) for title, content in sections if content is not None],
        f"Made by flax-resnets compare {__version__}, {datetime.datetime.now():%Y-%m-%d %H:%M}.",
    )


def result_columns(groups: Sequence[Group]) -> list[str]:
    """The columns of the results of these groups, after their labels."""
    of_classes = ["mAP", "F1"] if any(group.multilabel for group in groups) else []
    return ["runs", "seeds", "epochs", *of_classes, "accuracy", "best", "valid loss", "training"]


def result_rows(groups: Sequence[Group]) -> list[list[str]]:
    """The row of each group: its label, and a cell for each of `result_columns`."""
    several = any(group.multilabel for group in groups)
    return [_result_row(group, several) for group in groups]


def _result_row(group: Group, several: bool) -> list[str]:
    """The row of a group; `several` is whether there are columns for images of any number of classes."""
    if not group.members:
        return [""] * (1 + len(result_columns([]))) + [""] * 2 * several
    runs = [member.run for member in group.members]
    finished = sorted({run.epochs[-1].epoch if run.epochs else 0 for run in runs})
    last = [run.epochs[-1] for run in runs if run.epochs]
    best = [score(run.best, "accuracy") for run in runs if run.best]
    seconds = [run.seconds for run in runs if run.epochs]
    deviation = "" if group.deviation is None else f" ± {100 * group.deviation:.2f}"
    figures = ["" if group.mean is None else f"{100 * group.mean:.2f}{deviation}"]
    if several:
        figures = ["", "", *figures]
    if group.multilabel:
        figures = [figures[-1], _mean([100 * (row.f1 or 0.0) for row in last], ".2f")]
        figures.append(_mean([100 * row.accuracy for row in last], ".2f"))
    return [
        group.label,
        f"{len(runs)}",
        ", ".join(f"{member.seed}" for member in group.members),
        " to ".join(map(str, {finished[0]: 0, finished[-1]: 0})),
        *figures,
        f"{100 * max(best):.2f}" if best else "",
        _mean([row.valid_loss for row in last], ".4f"),
        _mean(seconds, ",.0f", " s"),
    ]


def _mean(values: Sequence[float], form: str, unit: str = "") -> str:
    return format(sum(values) / len(values), form) + unit if values else ""


def difference_rows(comparison: Comparison) -> list[list[str]]:
    """The row of each difference, with its group's label and the cells of `DIFFERENCE_COLUMNS`."""
    rows = []
    for each in comparison.differences:
        first = each.over_seeds or each.over_images
        mean, base = each.group.mean, each.base.mean
        difference = each.over_images and each.over_images.difference
        if mean is not None and base is not None:
            difference = mean - base
        p_value = None if first is None else first.p_value
        rows.append(
            [
                each.group.label,
                "" if difference is None else f"{100 * difference:+.2f}",
                _interval(each.over_images),
                _interval(each.over_seeds),
                "" if p_value is None else f"{p_value:.2g}",
            ]
        )
    return rows


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{100 * interval.lower:+.2f} to {100 * interval.upper:+.2f}"


def _results(comparison: Comparison) -> Html:
    notes = (element("p", each, class_="note") for each in comparison.notes)
    groups = comparison.groups
    return joined(
        [
            *notes,
            table(["group", *result_columns(groups)], result_rows(groups)),
            element("p", METHODS[0], class_="soft"),
        ]
    )


def _differences(comparison: Comparison) -> Html:
    methods = (element("p", each, class_="soft") for each in METHODS[1:])
    counts = [
        element(
            "p", f"{each.gained:,} images only {each.group.label} predicts right, {each.lost:,} only {each.base.label}."
        )
        for each in comparison.differences
        if each.gained is not None
    ]
    return joined([table(["group", *DIFFERENCE_COLUMNS], difference_rows(comparison)), *counts, *methods])


def _settings(comparison: Comparison) -> Html | None:
    if not comparison.settings:
        return None
    header = ["field", *(group.label for group in comparison.groups)]
    return table(header, [[name, *values] for name, values in comparison.settings.items()], left=len(header))


_CURVES: Mapping[str, tuple[str, float]] = {
    "mean_average_precision": ("valid mAP (%)", 100),
    "f1": ("valid F1 (%)", 100),
    "accuracy": ("valid accuracy (%)", 100),
    "valid_loss": ("valid loss (nats)", 1),
    "train_loss": ("train loss (nats)", 1),
}


def _curves(comparison: Comparison) -> Html | None:
    drawn = []
    for name, (label, scale) in _CURVES.items():
        lines = [
            line
            for colour, group in enumerate(comparison.groups)
            for line in _lines(group.members, group.label, name, scale, colour)
        ]
        if lines:
            drawn.append(line_chart(lines, "epoch", label))
    if not drawn:
        return None
    return joined([charts(drawn), element("p", "The runs of a group have the same colour.", class_="soft")])


def _lines(members: Sequence[Member], label: str, name: str, scale: float, colour: int) -> list[Line]:
    """The curves of a group's runs; the first one is in the legend."""
    rows = ([row.as_row() for row in member.run.epochs] for member in members)
    curves = [
        ([row["epoch"] for row in of_run], [scale * row[name] for row in of_run])
        for of_run in rows
        if of_run and name in of_run[-1]  # mean average precision is in all rows of a run, or in none
    ]
    return [Line(None if i else label, x, y, colour) for i, (x, y) in enumerate(curves)]


def _runs(comparison: Comparison) -> Html:
    alone = [(group.label, Group("", (member,))) for group in comparison.groups for member in group.members]
    rows = [
        [label, str(each.members[0].run.directory), *row[2:]]
        for (label, each), row in zip(alone, result_rows([each for _, each in alone]), strict=True)
    ]
    return table(["group", "run", *result_columns(comparison.groups)[1:]], rows, left=2)
