"""A trained network with its class names and its preprocessing."""

import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.errors import FlaxError

from flax_resnets.augment import evaluated
from flax_resnets.errors import UserError
from flax_resnets.inference.class_names import in_words
from flax_resnets.inference.images import Item, each_image
from flax_resnets.inference.preprocess import Preprocess, Settings
from flax_resnets.inference.whole_number import MOST_IN_A_STEP, whole_number
from flax_resnets.machine import cores
from flax_resnets.models.resnet import ResNet
from flax_resnets.paths import expanded
from flax_resnets.training.compilation import for_speed
from flax_resnets.training.multilabel import OF_EACH_CLASS
from flax_resnets.weights.names import features_of

if TYPE_CHECKING:
    from flax_resnets.data.identity import Identity
    from flax_resnets.data.source import Source
    from flax_resnets.inference.evaluation import Evaluation
    from flax_resnets.inference.explain import Explanation
    from flax_resnets.inference.multilabel_evaluation import MultilabelEvaluation

_MOST_AT_ONCE = 64  # images in a step if the caller names no number
_STEPS_AHEAD = 2  # steps whose images are decoded ahead, and steps that the device computes ahead


class Prediction(NamedTuple):
    """One class that an image may belong to.

    Attributes:
        class_name: in words: an identifier of WordNet that `flax_resnets.inference.class_names` knows is translated.
        index: the class's number, from 0.
        probability: from 0 to 1: the softmax of the logits; for a network trained by `bce`, their sigmoid.

    Example:
        >>> name, index, probability = Prediction("Sneaker", 7, 0.97)
        >>> print(Prediction("Sneaker", 7, 0.97))
        Sneaker 97.0 %
    """

    class_name: str
    index: int  # pyright: ignore[reportIncompatibleMethodOverride]  # the method of tuples is of no use here
    probability: float

    def __str__(self) -> str:
        return f"{self.class_name} {self.probability:.1%}".replace("%", " %")

    def __repr__(self) -> str:
        return f"Prediction({self.class_name!r}, {self.index}, {self.probability:.4g})"


class Classifier:
    """A trained network with its class names and its preprocessing; `load_classifier` returns it.

    All methods that take images take: the path of a file, or of a folder, whose images are taken in the order of their
    paths, with those of the folders in it; the bytes of a file; a uint8 array `(H, W)`, `(H, W, C)` or `(N, H, W, C)`
    of 1, 3 or 4 channels; a Pillow image; or any iterable of these, of which an empty one gives an empty result. Grey
    images are made from colour ones, and colour ones from grey, as the network needs them.

    Images are prepared as in the run's evaluation, and `eval_flip` is applied if the run's accuracy was measured with
    it. Logits are those of the evaluation, bit for bit, if `batch_size` is the number of images in its steps; with
    another number they may differ by float32's rounding.

    Args:
        model: the network.
        variables: `{"params": ..., "batch_stats": ...}`.
        settings: how images are prepared, and what the network was trained for.
        class_names: in the order of the network's outputs; empty for a network without a head.
        source: what messages call it.
        identity: the data of its run, with which `evaluate` compares what it finds; None if it is not known.
        words: words for some of the class names; for others, those that `flax_resnets.inference.class_names` knows.
        step: of the checkpoint that it is from; None if it is from no run.

    Attributes:
        model, class_names, settings, source, step: as above.
        variables: as above, as JAX arrays on the default device.
        preprocess: makes the network's input from images; see `Preprocess`.
        words: the names that `predict` returns, in the order of `class_names`.

    Raises:
        UserError: there are not as many class names as the network has outputs.
    """

    def __init__(
        self,
        model: nn.Module,
        variables: Mapping[str, Any],
        settings: Settings,
        class_names: Sequence[str],
        *,
        source: str = "classifier",
        identity: "Identity | None" = None,
        words: Mapping[str, str] | None = None,
        step: int | None = None,
    ):
        outputs = cast(Any, model).num_classes
        if len(class_names) != outputs:
            raise UserError(f"{source}: class_names: has {len(class_names)} names, the network has {outputs} outputs")
        self.model = model
        self.variables = jax.tree.map(jnp.asarray, dict(variables))
        self.settings = settings
        self.class_names = tuple(class_names)
        self.words = tuple((words or {}).get(name) or in_words(name) for name in self.class_names)
        self.preprocess = Preprocess(settings)
        self.source = source
        self.identity = identity
        self.step = step
        self._compiled: dict[Hashable, Callable[..., Any]] = {}

    def __repr__(self) -> str:
        return f"Classifier({self.settings.model}, {len(self.class_names)} classes, {self.preprocess}, {self.source})"

    def predict(self, images: Any, top_k: int = 5, *, batch_size: int | None = None) -> list[list[Prediction]]:
        """The most probable classes of each image.

        Args:
            images: see the class.
            top_k: number of classes for each image; all if the network has fewer.
            batch_size: see `logits`.

        Returns:
            A list for each image, the most probable class first.

        Raises:
            UserError: an image cannot be read, or the network has no classes.

        Example:
            >>> import jax, numpy as np
            >>> from flax_resnets import create_model
            >>> settings = Settings(model="lenet", dataset="", image_size=28, channels=1, mean=(0.3,), std=(0.3,))
            >>> model = create_model("lenet", num_classes=2)
            >>> variables = jax.tree.map(np.zeros_like, model.init(jax.random.key(0), np.zeros((1, 28, 28, 1))))
            >>> classifier = Classifier(model, variables, settings, ["cat", "dog"])
            >>> classifier.predict(np.zeros((40, 30, 3), np.uint8))
            [[Prediction('cat', 0, 0.5), Prediction('dog', 1, 0.5)]]
        """
        return list(self._checked(self.each_prediction(each_image(images), top_k, batch_size=batch_size)))

    def each_prediction(
        self, items: Iterable[Item], top_k: int = 5, *, batch_size: int | None = None
    ) -> Iterator[tuple[Item, list[Prediction] | UserError]]:
        """Like `predict`, for any number of images: yields results while it decodes and computes the next.

        An image that cannot be read does not end it.

        Args:
            items: the images, as `flax_resnets.inference.images.each_image` yields them.
            top_k: see `predict`.
            batch_size: see `logits`.

        Yields:
            Each image with its predictions, or with the error that names it.
        """
        if not self.class_names:
            raise UserError(f"{self.source}: has no classes, because num_classes=0; embed gives its features")
        top_k = whole_number("top_k", top_k)
        for item, logits in self._outputs(self.model, items, batch_size):
            yield item, logits if isinstance(logits, UserError) else self._named(item, logits, top_k)

    def logits(self, images: Any, *, batch_size: int | None = None) -> np.ndarray:
        """The network's outputs before softmax or sigmoid.

        Args:
            images: see the class.
            batch_size: number of images in each step, at most 65536; the last step is filled up with black images. None
                for up to 64, or, if there are fewer images, the next power of two. A program is compiled for each
                number.

        Returns:
            float32 `(N, classes)`.

        Raises:
            UserError: an image cannot be read.
        """
        return self._stacked(self.model, images, batch_size)

    def embed(self, images: Any, *, batch_size: int | None = None) -> np.ndarray:
        """The pooled features, from which the network's last layer computes the logits.

        Args:
            images: see the class.
            batch_size: see `logits`.

        Returns:
            float32 `(N, features)`. With `eval_flip` they are the mean of an image's and its mirror image's.

        Raises:
            UserError: an image cannot be read.
        """
        return self._stacked(self._without_head, images, batch_size)

    def explain(
        self,
        images: Any,
        class_name: str | int | None = None,
        stage: str | None = None,
        method: Literal["grad_cam", "integrated_gradients"] = "grad_cam",
        *,
        steps: int = 64,
        batch_size: int | None = None,
    ) -> "list[Explanation]":
        """Which parts of each image speak for a class, as a heat map.

        `grad_cam` weighs the feature maps of a stage by the class's mean gradient and keeps what is above 0: Selvaraju
        et al. 2017, arXiv:1610.02391, section 3. It shows regions, as coarse as the stage's maps. With
        `integrated_gradients` each pixel gets the integral of its gradient on the straight way from a black image:
        Sundararajan et al. 2017, arXiv:1703.01365, section 3.

        Gradients are computed in float32, also if the network computes in half precision. With `eval_flip` the
        explained logit is the mean over the image and its mirror image, as in `logits`.

        Args:
            images: see the class.
            class_name: for all images, a class's name, its words or its number; None for each image's most probable
                class.
            stage: of `grad_cam`: a ResNet's `stem` or `stage1` to `stage4`, or of a network of a textbook one of the
                names that `method="layers"` gives; None for the last one that has more than one position.
            method: `grad_cam` or `integrated_gradients`.
            steps: of `integrated_gradients`: the number of gradients in the sum that stands for the integral. The paper
                finds 20 to 300 enough; more make the attributions' sum more exact.
            batch_size: number of images in each step; the last step is filled up with black images. None for up to 16.
                A program is compiled for each number.

        Returns:
            An `Explanation` for each image.

        Raises:
            UserError: an image cannot be read, or there is no such class, stage or method.

        Example:
            >>> explanation = load_classifier("runs/quickstart").explain("shoe.png")[0]  # doctest: +SKIP
            >>> explanation, explanation.heat.shape, explanation.overlay().shape  # doctest: +SKIP
            (Explanation('Sneaker', 7, 0.97, 28 x 28, grad_cam at stage4), (28, 28), (28, 28, 3))
        """
        from flax_resnets.inference.explain import explain

        return explain(self, images, class_name, stage, method, steps=steps, batch_size=batch_size)

    @property
    def num_features(self) -> int:
        """The number of features that `embed` gives for an image."""
        return features_of(self.model) if isinstance(self.model, ResNet) else self._num_outputs(self._without_head)

    def at_size(self, image_size: int | None = None, crop_pct: float | None = None) -> "Classifier":
        """The same network for images of another size, or with another crop: `save`, `export` and the rest have it too.

        In random crops objects look larger than in whole images. So a network that was trained on them is often more
        accurate on somewhat larger images than it was trained on, or with a centre crop: Touvron et al. 2019, "Fixing
        the train-test resolution discrepancy", arXiv:1906.06423. Measure on a validation set that it is.

        Args:
            image_size: side of the square images that the network sees, in pixels; None for what it is.
            crop_pct: share of an image's side that the network sees, from its centre; 1 for the whole image, None for
                what it is.

        Raises:
            UserError: a value is not allowed, or the network takes images of its own size alone.

        Example:
            >>> load_classifier("resnet50.a1_in1k").at_size(288, crop_pct=1.0)  # doctest: +SKIP
        """
        settings = self.settings.at_size(image_size, crop_pct)
        side = settings.image_size
        try:
            jax.eval_shape(
                lambda variables, images: self.model.apply(variables, images, train=False),
                self.variables,
                jax.ShapeDtypeStruct((1, side, side, settings.channels), jnp.float32),
            )
        except (ValueError, TypeError, ZeroDivisionError, OverflowError, FlaxError) as error:
            has_positions = "it has a weight for each position of an image"
            reason = has_positions if isinstance(error, FlaxError) else str(error).partition("\n")[0][:200]
            raise UserError(
                f"image_size={side}: {self.source} was trained at {self.settings.image_size} px and takes no images of "
                f"this size: {reason}"
            ) from None
        return Classifier(
            self.model,
            self.variables,
            settings,
            self.class_names,
            source=self.source,
            identity=self.identity,
            words=dict(zip(self.class_names, self.words, strict=True)),
            step=self.step,
        )

    def save(self, folder: str | os.PathLike[str], *, force: bool = False) -> None:
        """Saves the classifier in timm's form: `config.json` and `model.safetensors`.

        `load_classifier(folder)` gives the same bits. timm loads it too, if it has the network:
        `timm.create_model("local-dir:FOLDER", pretrained=True)`. Weights are saved in float32.

        Args:
            folder: is made; it never exists half-written.
            force: whether to replace what is saved in an existing folder. Other files in it stay.

        Raises:
            UserError: the folder exists and `force` is not set, or cannot be written; or the network's norms are
                folded.

        Example:
            >>> load_classifier("runs/quickstart").save("sneakers")  # doctest: +SKIP
        """
        from flax_resnets.inference.folder import write_folder

        if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
            raise UserError(f"folder={str(folder)[:100]!r}: must be the path of a folder")
        write_folder(self, expanded(folder, "folder"), force)

    def export(self, path: str | os.PathLike[str], format: str | None = None, force: bool = False) -> list[Path]:
        """Writes the network into a file for programs that do not have this library.

        `stablehlo` is a program that needs only jax and flatbuffers, and runs on a CPU, a GPU (CUDA) or a TPU:

            program = jax.export.deserialize(Path("net.stablehlo").read_bytes())
            logits = program.call(images)

        `onnx` is one for onnxruntime and others. `safetensors` has the weights alone: a ResNet's under timm's names,
        those of other networks under ours, in torch's order of axes. `saved` is the folder of `save`.

        Both programs take uint8 images `(N, H, W, C)`, any number of them, and give float32 logits `(N, classes)`, or
        features `(N, features)` if the network has no classes. Cropping, resizing, normalisation and `eval_flip` are
        inside. For images that are prepared as the method `logits` does it on the host first, the logits are its own,
        to float32's rounding. It brings an image to `preprocess.stored_size` rows and columns, by the filter and the
        crop that `settings.interpolation` and `settings.resize` name; an image that has them stays as it is. If
        `settings.shorter_side` is a number, as of timm's weights, it resizes the shorter side of every image to that
        number, by this filter, and takes the centre of the stored size. A `stablehlo` program
        also takes images of any other size, and squashes them to the network's size by a bilinear, antialiased resize
        on the device, unless `crop_pct` is below 1. An `onnx` program takes images of `stored_size` alone.

        A network of half precision keeps it in `stablehlo`. In `onnx` it computes in float32, so that logits differ by
        the half precision's rounding.

        Args:
            path: of the file, or of the folder for `saved`. It never exists half-written. Beside a file lies
                another with `.json` added to its name: input, output, class names, and what has to happen to an image
                before, and what happens in the file.
            format: `stablehlo`, `onnx`, `safetensors` or `saved`; None for that of the path's ending, and `stablehlo`
                if it has none of theirs.
            force: whether to replace what exists.

        Returns:
            The paths of what was written, the network's first.

        Raises:
            UserError: there is no such format, the path ends as another one's, a package that it needs is not
                installed, or the path exists and `force` is not set, or cannot be written.

        Example:
            >>> load_classifier("runs/quickstart").export("sneakers.stablehlo")  # doctest: +SKIP
            [PosixPath('sneakers.stablehlo'), PosixPath('sneakers.stablehlo.json')]
        """
        from flax_resnets.inference.export import export

        return export(self, path, format, force)

    def evaluate(
        self,
        dataset: "str | Source | None" = None,
        split: str | None = None,
        *,
        data_dir: str | None = None,
        batch_size: int | None = None,
        tta: Literal["none", "flip", "five_crop"] | None = None,
        broken_images: Literal["stop", "skip"] | None = None,
        progress: Callable[[int, int], None] | None = None,
        **fields: Any,
    ) -> "Evaluation | MultilabelEvaluation":
        """Accuracies, loss, figures of each class, confusion matrix and calibration on a labelled set.

        On the run's own dataset, accuracies and loss are exactly those in its `metrics.jsonl`. If an image of the set
        may have any number of classes, the result is a `MultilabelEvaluation`, with mean average precision and F1.

        Args:
            dataset: a name as in a recipe, or an opened split; None for the dataset of the run. Its classes are found
                by their names: they may have another order, or be some of the classifier's.
            split: `validation` or `train`, as training takes them; `all` for all images of a folder, of parquet files
                or of arrays that have one split, and of TFDS's all splits; or another name that the dataset has for a
                split, such as `test`. None for `validation`; but for `all` if the images are none of TFDS's, other than
                the run's, and have no validation split.
            data_dir: directory of the dataset; None for the run's if it is the run's dataset, else TFDS's default.
            batch_size: images in a step; None for the run's.
            tta: test-time augmentation: `flip` for the mean over an image and its mirror image; `five_crop` for the
                mean over the centre and the four corners; `none`; None for what the run's accuracy was measured with.
            broken_images: `stop`, or `skip` to leave out images that cannot be decoded; None for what the run did.
            progress: is called with the number of finished images, of decoding and of evaluation, and of all images.
            fields: other fields of `flax_resnets.data.config.DataConfig`, such as `validation_split`.

        Raises:
            UserError: there is no such data, it has a class that the classifier does not have, its images may have any
                number of classes and the classifier was trained for one class, or an image is broken.

        Warns:
            RuntimeWarning: the dataset has the name of the run's, but other content: training may have seen its images.

        Example:
            >>> load_classifier("runs/quickstart").evaluate("fashion_mnist_sample").accuracy  # doctest: +SKIP
        """
        from flax_resnets.inference.evaluate import evaluate

        return evaluate(
            self,
            dataset,
            split,
            data_dir=data_dir,
            batch_size=batch_size,
            tta=tta,
            broken_images=broken_images,
            progress=progress,
            **fields,
        )

    def _named(self, item: Item, logits: np.ndarray, top_k: int) -> list[Prediction] | UserError:
        if not np.isfinite(logits).all():
            return UserError(f"{item.name}: {self.source} gives logits that are not finite for it")
        exact = logits.astype(np.float64)
        if self.settings.loss in OF_EACH_CLASS:  # their probabilities need not sum to 1
            probabilities = np.exp(-np.logaddexp(0, -exact))
        else:
            probabilities = np.exp(exact - np.logaddexp.reduce(exact))
        first = np.argsort(-logits, kind="stable")[:top_k]  # of equal ones the lower number, as in evaluation
        return [Prediction(self.words[index], int(index), float(probabilities[index])) for index in first]

    def _checked(self, results: Iterable[tuple[Item, Any]]) -> Iterator[Any]:
        """The results alone; raises the first error."""
        for _, result in results:
            if isinstance(result, UserError):
                raise result
            yield result

    @property
    def _without_head(self) -> nn.Module:
        return cast(Any, self.model).clone(num_classes=0)

    def _num_outputs(self, model: nn.Module) -> int:
        stored = (1, self.preprocess.stored_size, self.preprocess.stored_size, self.settings.channels)
        images = jax.ShapeDtypeStruct(stored, jnp.uint8)
        return jax.eval_shape(self._program(model), self.variables, images).shape[1]

    def _stacked(self, model: nn.Module, images: Any, batch_size: int | None) -> np.ndarray:
        rows = list(self._checked(self._outputs(model, each_image(images), batch_size)))
        return np.stack(rows) if rows else np.zeros((0, self._num_outputs(model)), np.float32)

    def _outputs(
        self, model: nn.Module, items: Iterable[Item], batch_size: int | None
    ) -> Generator[tuple[Item, np.ndarray | UserError]]:
        """Yields each image with its row of the network's outputs, or with the error that names it, in order."""
        size = None if batch_size is None else whole_number("batch_size", batch_size, MOST_IN_A_STEP)
        most = size or _MOST_AT_ONCE
        under_way: deque[tuple[list[tuple[Item, np.ndarray | UserError]], jax.Array | None]] = deque()
        for batch in _in_batches(self.decoded(items, most * _STEPS_AHEAD), most):
            size = size or min(most, 2 ** math.ceil(math.log2(len(batch))))
            under_way.append((batch, self._computed(model, batch, size)))
            if len(under_way) > _STEPS_AHEAD:
                yield from _rows(*under_way.popleft())
        while under_way:
            yield from _rows(*under_way.popleft())

    def decoded(self, items: Iterable[Item], ahead: int) -> Generator[tuple[Item, np.ndarray | UserError]]:
        """Yields the images as the device gets them, or the errors that name them; threads decode `ahead` ahead."""

        def decode(item: Item) -> tuple[Item, np.ndarray | UserError]:
            try:
                return item, self.preprocess.stored(item)
            except UserError as error:
                return item, error

        pool = ThreadPoolExecutor(cores())  # the decoders release the global interpreter lock
        try:
            waiting: deque[Future[tuple[Item, np.ndarray | UserError]]] = deque()
            for item in items:
                waiting.append(pool.submit(decode, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _computed(
        self, model: nn.Module, batch: list[tuple[Item, np.ndarray | UserError]], size: int
    ) -> jax.Array | None:
        """Starts the step for a batch; None if none of its images can be read."""
        stored = [image for _, image in batch if isinstance(image, np.ndarray)]
        if not stored:
            return None
        filled = np.zeros((size, *stored[0].shape), np.uint8)
        filled[: len(stored)] = stored
        return self._program(model)(self.variables, filled)

    def _program(self, model: nn.Module) -> Callable[[Any, np.ndarray], jax.Array]:
        """The network with its preprocessing, compiled as the trainer compiles its evaluation."""

        def compute(variables: Any, stored: jax.Array) -> jax.Array:
            def network(images: jax.Array) -> jax.Array:
                return cast(jax.Array, model.apply(variables, images, train=False))

            return evaluated(network, stored, self.settings, self.settings.image_size).astype(jnp.float32)

        return self.compiled(cast(Any, model).num_classes, compute)

    def compiled(self, key: Hashable, compute: Callable[..., Any]) -> Callable[..., Any]:
        """The function as a program for one device, compiled as the trainer compiles its evaluation.

        Args:
            key: what tells the function from others. The first function of a key stays, with what it has compiled.
            compute: the function, of arrays alone.
        """
        if key not in self._compiled:
            mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
            self._compiled[key] = jax.jit(compute, compiler_options=for_speed(mesh))
        return self._compiled[key]


def _in_batches(
    images: Iterable[tuple[Item, np.ndarray | UserError]], size: int
) -> Iterator[list[tuple[Item, np.ndarray | UserError]]]:
    images = iter(images)
    while batch := list(itertools.islice(images, size)):
        yield batch


def _rows(
    batch: list[tuple[Item, np.ndarray | UserError]], outputs: jax.Array | None
) -> Iterator[tuple[Item, np.ndarray | UserError]]:
    rows = iter(() if outputs is None else np.asarray(outputs))
    for item, image in batch:
        yield item, image if isinstance(image, UserError) else next(rows)
