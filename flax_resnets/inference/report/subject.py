"""What a report is about."""

from dataclasses import dataclass

from flax_resnets.inference.classifier import Classifier
from flax_resnets.inference.evaluation import Evaluation
from flax_resnets.inference.multilabel_evaluation import MultilabelEvaluation
from flax_resnets.inference.recorded import Recorded


@dataclass(frozen=True)
class Subject:
    """What a report is about. A part that is not at hand is None, and a note says why.

    Attributes:
        name: of the run or the saved folder.
        run: what the run recorded; None for a saved folder.
        classifier: its network; None if it has no checkpoint yet.
        evaluation: the network on the validation split, or on the dataset that was named; None if there is no
            network, or the pictures are not at hand.
        notes: what is missing, and what a reader has to know.
    """

    name: str
    run: Recorded | None
    classifier: Classifier | None
    evaluation: Evaluation | MultilabelEvaluation | None
    notes: tuple[str, ...] = ()

    @property
    def of_one_class(self) -> Evaluation | None:
        """The evaluation, if each image has one class; about other images there is less to say."""
        return self.evaluation if isinstance(self.evaluation, Evaluation) else None
