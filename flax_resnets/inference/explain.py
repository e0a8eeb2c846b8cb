"""Explanations of single predictions, as heat maps: Grad-CAM and integrated gradients.

Grad-CAM: Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
arXiv:1610.02391. Integrated gradients: Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks",
arXiv:1703.01365.
"""

import difflib
import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnets.augment import for_evaluation
from flax_resnets.augment.normalise import statistics_of
from flax_resnets.errors import UserError
from flax_resnets.inference.class_names import ambiguous, by_name, normalised
from flax_resnets.inference.classifier import Classifier, Prediction
from flax_resnets.inference.images import Stored, each_image
from flax_resnets.inference.whole_number import MOST_IN_A_STEP, whole_number
from flax_resnets.models.activations import layer_shapes

Method = Literal["grad_cam", "integrated_gradients"]

_MOST_AT_ONCE = 16  # images in a step if the caller names no number; a gradient needs more memory than a prediction
_BRIGHTEST = 99  # percentile of the attributions' magnitudes that gets the full colour
_LISTED = 12  # classes that an error lists; of more it suggests the nearest


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Which parts of an image speak for a class. `np.asarray(explanation)` is `heat`.

    Attributes:
        heat: float32 `(H, W)`, at the size of the images that the network sees. Of `grad_cam`: from 0 to 1, and 1 where
            most speaks for the class; all 0 if nothing does. Of `integrated_gradients`: from -1 to 1, above 0 where a
            pixel speaks for the class and below 0 where it speaks against it; the attributions, summed over the
            channels and divided by the 99th percentile of their magnitudes, beyond which they are cut.
        class_name: the class in words, see `Prediction`.
        index: the class's number, from 0.
        probability: of the class, as `predict` gives it.
        picture: uint8 `(H, W, C)`, the image as the network sees it, before its normalisation.
        method: `grad_cam` or `integrated_gradients`.
        stage: of `grad_cam`, the stage whose feature maps are weighed; else None.
        attributions: of `integrated_gradients`: float32 `(H, W, C)`, how much each pixel adds to the class's logit;
            else None. Their sum is the logit of the image less that of a black image.
    """

    heat: np.ndarray
    class_name: str
    index: int
    probability: float
    picture: np.ndarray
    method: Method
    stage: str | None = None
    attributions: np.ndarray | None = None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.heat, dtype) if copy else np.asarray(self.heat, dtype)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.heat.shape))
        where = f" at {self.stage}" if self.stage else ""
        return f"Explanation({self.class_name!r}, {self.index}, {self.probability:.4g}, {size}, {self.method}{where})"

    def overlay(self, strength: float = 0.6) -> np.ndarray:
        """The picture under the heat in colours, uint8 `(H, W, 3)`.

        Where there is no heat the picture is as it was. Of `grad_cam`, little heat is blue and much heat is red. Of
        `integrated_gradients`, red speaks for the class and blue against it.

        Args:
            strength: share of the colour where the heat is largest, 0 to 1.
        """
        from matplotlib import colormaps

        if not 0 <= strength <= 1:
            raise UserError(f"strength={strength}: must be from 0 to 1")
        signed = self.method == "integrated_gradients"
        colours = colormaps["bwr"]((self.heat + 1) / 2) if signed else colormaps["turbo"](self.heat)
        # The square root lets the colours show before the heat is at its largest.
        share = strength * np.sqrt(np.abs(self.heat))[..., None]
        below = np.broadcast_to(self.picture, (*self.heat.shape, 3)) / 255
        return np.round(255 * ((1 - share) * below + share * colours[..., :3])).astype(np.uint8)


def explain(
    classifier: Classifier,
    images: Any,
    class_name: str | int | None = None,
    stage: str | None = None,
    method: Method = "grad_cam",
    *,
    steps: int = 64,
    batch_size: int | None = None,
) -> list[Explanation]:
    """See `Classifier.explain`."""
    if method not in get_args(Method):
        raise UserError(f"method={str(method)[:100]!r}: must be {' or '.join(get_args(Method))}")
    steps = whole_number("steps", steps)
    batch_size = None if batch_size is None else whole_number("batch_size", batch_size, MOST_IN_A_STEP)
    index = None if class_name is None else class_number(classifier, class_name)
    if method == "grad_cam":
        stage = _stage(classifier, stage)
        program = classifier.compiled(("grad_cam", stage), partial(_grad_cam, classifier, stage))
    else:
        stage = None
        program = classifier.compiled(
            ("integrated_gradients", steps), partial(_integrated_gradients, classifier, steps)
        )
    explanations = []
    for stored, chosen, size in _batches(classifier, images, index, batch_size):
        filled = np.zeros((size, *stored.shape[1:]), np.uint8)
        filled[: len(stored)] = stored
        classes = np.zeros(size, np.int32)
        classes[: len(stored)] = [each.index for each in chosen]
        values, pictures = map(np.asarray, program(classifier.variables, filled, classes))
        for value, picture, each in zip(values, pictures, chosen, strict=False):  # the last rows fill up the step
            whole = None if method == "grad_cam" else value
            heat = _from_0_to_1(value) if whole is None else _from_minus_1_to_1(value.sum(-1))
            explanations.append(
                Explanation(heat, each.class_name, each.index, each.probability, picture, method, stage, whole)
            )
    return explanations


def class_number(classifier: Classifier, class_name: str | int) -> int:
    """The number of a class that is given by its name, its words or its number.

    Args:
        classifier: has `class_names` and `words`.
        class_name: the class.

    Raises:
        UserError: there is no such class, or several have these words.
    """
    names, words = classifier.class_names, classifier.words
    if not names:
        raise UserError(f"class_name={str(class_name)[:100]}: the network has no classes, because num_classes=0")
    if isinstance(class_name, str):
        name = normalised(class_name)
        found = by_name(names).get(name) or by_name(words).get(name, [])
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"class_name={class_name[:100]!r}: {ambiguous(found, names)}")
        raise UserError(f"class_name={class_name[:100]!r}: no such class; {_nearest(class_name, words)}")
    try:
        number = operator.index(class_name)
    except TypeError:
        raise UserError(
            f"class_name={str(class_name)[:100]}: must be a class's name or number, or None for the most probable"
        ) from None
    if isinstance(class_name, bool) or not 0 <= number < len(names):
        raise UserError(
            f"class_name={str(class_name)[:100]}: must be a class's name, or a number up to {len(names) - 1}"
        )
    return number


def stages(classifier: Classifier) -> dict[str, tuple[int, int]]:
    """The names of a network's stages that have feature maps, in order, with the rows and columns of the maps.

    Args:
        classifier: gives the network and the size of its images.

    Example:
        `{"stem": (64, 64), "stage1": (32, 32), "stage2": (16, 16), "stage3": (8, 8), "stage4": (4, 4)}`
    """
    settings = classifier.settings
    if not hasattr(classifier.model, "layers"):
        return {}
    shape = (1, settings.image_size, settings.image_size, settings.channels)
    shapes = layer_shapes(classifier.model, classifier.variables, shape)
    return {name: each[1:3] for name, each in shapes.items() if len(each) == 4}


def _stage(classifier: Classifier, stage: str | None) -> str:
    """The stage that a caller names, or the last one in which a place can be told."""
    maps = stages(classifier)
    several = [name for name, (height, width) in maps.items() if height * width > 1]
    network, size = classifier.settings.model, classifier.settings.image_size
    if not several:
        raise UserError(f"stage={stage}: {network} has no stage with more than one position at {size} px")
    if stage is None:
        return several[-1]
    if stage in maps and stage not in several:
        raise UserError(f"stage={stage}: has one position at {size} px and tells no place; take {several[-1]}")
    if stage not in maps:
        raise UserError(f"stage={str(stage)[:100]!r}: {network} has the stages {', '.join(several)}")
    return stage


def _nearest(word: str, known: Sequence[str]) -> str:
    if len(known) <= _LISTED:
        return f"there are {', '.join(each[:30] for each in known)}"
    by_lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(word[:100].lower(), list(by_lower), n=3)
    return f"did you mean {' or '.join(by_lower[each] for each in close)}?" if close else f"there are {len(known):,}"


def _batches(
    classifier: Classifier, images: Any, index: int | None, batch_size: int | None
) -> Iterator[tuple[np.ndarray, list[Prediction], int]]:
    """Yields stored images, the prediction to explain for each, and the number of images in a step."""
    most, size = batch_size or _MOST_AT_ONCE, batch_size
    decoded = classifier.decoded(each_image(images), most)
    while batch := list(itertools.islice(decoded, most)):
        for _, stored in batch:
            if isinstance(stored, UserError):
                raise stored
        size = size or min(most, 2 ** math.ceil(math.log2(len(batch))))
        again = [Stored(item.name, cast(np.ndarray, stored)) for item, stored in batch]
        classes = len(classifier.class_names)
        chosen = [_chosen(result, index) for _, result in classifier.each_prediction(again, classes, batch_size=size)]
        yield np.stack([cast(np.ndarray, stored) for _, stored in batch]), chosen, size


def _chosen(predictions: list[Prediction] | UserError, index: int | None) -> Prediction:
    if isinstance(predictions, UserError):
        raise predictions
    return predictions[0] if index is None else next(each for each in predictions if each.index == index)


def _grad_cam(
    classifier: Classifier, stage: str, variables: Any, stored: jax.Array, classes: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Grad-CAM before its scaling, `(N, H, W)`, and the pictures: section 3, equations 1 and 2.

    With `eval_flip` the logit is the mean over the image and its mirror image, and so is the weighted sum of the maps.
    """
    model, settings = _in_float32(classifier), classifier.settings

    def weighted_maps(images: jax.Array) -> jax.Array:
        def logits(perturbation: jax.Array) -> tuple[jax.Array, jax.Array]:
            at = {**variables, "perturbations": {stage: perturbation}}
            layers = cast(dict[str, jax.Array], model.apply(at, images, train=False, method="layers"))
            return _of_classes(layers["head"], classes).sum(), layers[stage]

        maps = jax.eval_shape(lambda: model.apply(variables, images, train=False, method="layers")[stage])
        gradient, maps = jax.grad(logits, has_aux=True)(jnp.zeros(maps.shape, maps.dtype))
        return jnp.einsum("nhwc,nc->nhw", maps, gradient.mean((1, 2)))

    prepared = for_evaluation(stored, settings, settings.image_size)
    summed = weighted_maps(prepared)
    if settings.eval_flip:
        summed = (summed + weighted_maps(prepared[:, :, ::-1])[:, :, ::-1]) / 2
    heat = jax.image.resize(jax.nn.relu(summed), prepared.shape[:3], "linear")
    return heat, _pictures(classifier, prepared)


def _integrated_gradients(
    classifier: Classifier, steps: int, variables: Any, stored: jax.Array, classes: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Integrated gradients, `(N, H, W, C)`, and the pictures: section 3, and the sum of section 5, equation 3.

    The gradients are taken in the middle of each of the `steps` parts of the way, where the sum is closer to the
    integral than at the parts' ends.
    """
    model, settings = _in_float32(classifier), classifier.settings

    def logits(images: jax.Array) -> jax.Array:
        outputs = model.apply(variables, images, train=False)
        if settings.eval_flip:
            outputs = (outputs + model.apply(variables, images[:, :, ::-1], train=False)) / 2
        return _of_classes(outputs, classes).sum()

    prepared = for_evaluation(stored, settings, settings.image_size)
    black = for_evaluation(jnp.zeros_like(stored), settings, settings.image_size)

    def add(step: jax.Array, total: jax.Array) -> jax.Array:
        return total + jax.grad(logits)(black + (step + 0.5) / steps * (prepared - black))

    total = jax.lax.fori_loop(0, steps, add, jnp.zeros_like(prepared))
    return (prepared - black) * total / steps, _pictures(classifier, prepared)


def _in_float32(classifier: Classifier) -> Any:
    """The network, computing in float32: gradients of float16 underflow."""
    return cast(Any, classifier.model).clone(dtype=jnp.float32)


def _of_classes(logits: jax.Array, classes: jax.Array) -> jax.Array:
    return jnp.take_along_axis(logits, classes[:, None], axis=1)[:, 0]


def _pictures(classifier: Classifier, prepared: jax.Array) -> jax.Array:
    mean, std = (jnp.array(each, jnp.float32) for each in statistics_of(classifier.settings))
    return jnp.round(255 * (prepared * std + mean)).clip(0, 255).astype(jnp.uint8)


def _from_0_to_1(heat: np.ndarray) -> np.ndarray:
    most = heat.max()
    return heat / most if most > 0 else heat


def _from_minus_1_to_1(heat: np.ndarray) -> np.ndarray:
    most = np.percentile(np.abs(heat), _BRIGHTEST) or np.abs(heat).max()
    return (heat / most).clip(-1, 1).astype(np.float32) if most > 0 else heat
