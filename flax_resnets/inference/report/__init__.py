"""A page about one run: what it learnt, where it errs, and how to repeat it.

A report is a list of sections. To add one: a function from the `Subject` to HTML, and its line in `SECTIONS`.
"""

import datetime
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from flax_resnets import __version__
from flax_resnets.errors import UserError
from flax_resnets.inference.load import load_classifier
from flax_resnets.inference.page import Html, page
from flax_resnets.inference.recorded import read_recorded
from flax_resnets.inference.report import evaluation_sections, run_sections
from flax_resnets.inference.report.result import result
from flax_resnets.inference.report.subject import Subject
from flax_resnets.weights import hub


def report(
    source: str | os.PathLike[str],
    *,
    checkpoint: Literal["best", "last"] | int = "best",
    average: bool | None = None,
    class_names: Sequence[str] | None = None,
    dataset: str | None = None,
    data_dir: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """A report on a run, as an HTML page that is one file.

    It evaluates the network on the run's validation split, or on another dataset. What is not at hand (checkpoint,
    pictures, finished epochs) is named at the top of the page, and the rest is there. The run may be under way.

    Args:
        source: as for `load_classifier`.
        checkpoint: see `load_classifier`.
        average: see `load_classifier`.
        class_names: see `load_classifier`.
        dataset: name of another dataset, see `Classifier.evaluate`; None for the run's.
        data_dir: directory of the dataset; None for the run's.
        progress: see `Classifier.evaluate`.

    Raises:
        UserError: the source is no run and no saved folder, or a file in it is damaged; or the network cannot be
            evaluated on the dataset or in the directory that is named.

    Example:
        >>> page = report("runs/quickstart")  # doctest: +SKIP
        >>> Path("report.html").write_text(page, encoding="utf-8")  # doctest: +SKIP
    """
    source = hub.by_name(source) if isinstance(source, str) else source
    from_hub = isinstance(source, str) and source.startswith(hub.PREFIX)
    run = None if from_hub else read_recorded(source)
    notes: list[str] = []
    classifier = evaluation = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default", RuntimeWarning)
        try:
            classifier = load_classifier(source, checkpoint=checkpoint, average=average, class_names=class_names)
        except UserError as error:
            if run is None:
                raise
            notes.append(f"No network: {error}")
        if classifier is not None:
            asked, before = dataset is not None or data_dir is not None, len(caught)
            if asked:
                where = "" if data_dir is None else f" in {data_dir}"
                notes.append(f"Evaluated on the dataset {dataset or classifier.settings.dataset}{where}, as asked.")
            try:
                # Without a name, only the validation split is the run's own.
                split = None if dataset else "validation"
                evaluation = classifier.evaluate(dataset, split, data_dir=data_dir, progress=progress)
            except UserError as error:
                if asked:
                    raise
                del caught[before:]  # they are about the evaluation
                notes.append(f"No evaluation, and no pictures: {error}")
    for each in caught:
        notes.append(str(each.message))
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    if run is not None:
        notes += [f"The run was amended {each}." for each in run.amended]
    if run is not None and not run.epochs:
        notes.append("No curves: the run has not finished an epoch yet.")
    name = str(source) if run is None else run.name
    return page_of(Subject(name, run, classifier, evaluation, tuple(notes)))


def page_of(subject: Subject) -> str:
    """The page about a subject."""
    sections = [(title, section(subject)) for title, section in SECTIONS.items()]
    made = f"{datetime.datetime.now():%Y-%m-%d %H:%M}"
    return page(
        subject.name,
        _in_a_line(subject),
        [(title, content) for title, content in sections if content is not None],
        f"Made by flax-resnets report {__version__}, {made}.",
    )


def _in_a_line(subject: Subject) -> str:
    run, classifier = subject.run, subject.classifier
    if run is None:
        return f"A saved network: {classifier.settings.model}" if classifier else ""
    data = run.identity.in_words(run.config["image_size"]) if run.identity else str(run.config["dataset"])
    return f"{run.config['model']} on {data}"


SECTIONS: Mapping[str, Callable[[Subject], Html | None]] = {
    "Result": result,
    "Curves": run_sections.curves,
    "Learning rate and momentum": run_sections.schedule,
    "Epochs": run_sections.epochs,
    "Classes": evaluation_sections.classes,
    "Confusion matrix": evaluation_sections.confusion,
    "Most confused classes": evaluation_sections.pairs,
    "Worst mistakes": evaluation_sections.worst,
    "Likely mislabelled": evaluation_sections.mislabelled,
    "Best": evaluation_sections.best,
    "Calibration": evaluation_sections.calibration,
    "First filters": run_sections.filters,
    "Activations": run_sections.activations,
    "Configuration": run_sections.configuration,
    "Data": run_sections.data,
    "Lineage": run_sections.lineage,
    "Environment": run_sections.environment,
    "Repeat": run_sections.repeat,
}
"""The sections of a report, in order. One that has nothing to show gives None, and is left out."""
