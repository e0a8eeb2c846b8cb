"""A network as an ONNX graph: JAX traces it, and each operation of the trace becomes a few nodes.

What depends on no image (weights, the matrices of a resize) is computed here and stored. Where `models` has another
formulation for CPUs, the plain one is taken. Convolutions and pools of ONNX take images as NCHW; a tensor stays in that
order from one to the next, and is brought back to NHWC only for operations that need it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax import export
from jax.extend.core import Literal
from onnx import helper, numpy_helper

from flax_resnets import __version__
from flax_resnets.errors import UserError

OPSET = 17
"""The version of ONNX's operations; onnxruntime reads it from version 1.12 of 2022 on."""
_IR_VERSION = 8  # of the file format, the one that came with this opset

_TO_NCHW, _TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
_PLACE_IN_NCHW = (0, 2, 3, 1)  # of each axis of NHWC
_END = 2**63 - 1


def onnx_model(program: Callable[[jax.Array], jax.Array], description: Mapping[str, Any]) -> bytes:
    """The content of an `.onnx` file.

    Args:
        program: from uint8 `(N, H, W, C)` to float32 `(N, outputs)`.
        description: see `flax_resnets.inference.export.describe`; the file holds it, each value as JSON.

    Raises:
        UserError: the network has an operation that is not known here.
    """
    images, outputs = description["input"], description["output"]
    (batch,) = export.symbolic_shape("batch")
    traced = jax.make_jaxpr(program)(jax.ShapeDtypeStruct((batch, *images["shape"][1:]), jnp.uint8))
    graph = _Graph()
    given = _Tensor(images["name"], tuple(images["shape"]), False)
    (result,) = graph.run(traced.jaxpr, traced.consts, [given])
    graph.nodes.append(helper.make_node("Identity", [graph.name(result)], [outputs["name"]]))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            description["architecture"],
            [helper.make_tensor_value_info(images["name"], onnx.TensorProto.UINT8, images["shape"])],
            [helper.make_tensor_value_info(outputs["name"], onnx.TensorProto.FLOAT, outputs["shape"])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="flax_resnets",
        producer_version=__version__,
    )
    helper.set_model_props(model, {name: json.dumps(value) for name, value in description.items()})
    onnx.checker.check_model(model)
    return model.SerializeToString()


@dataclass(frozen=True)
class _Tensor:
    """What a node computes.

    Attributes:
        name: in the graph.
        shape: as in JAX, with "batch" for the number of images. A side may be 1 where JAX has already repeated it.
        nchw: whether the graph's tensor is JAX's with its axes in the order of NCHW.
    """

    name: str
    shape: tuple[int | str, ...]
    nchw: bool


_Value = _Tensor | np.ndarray  # the latter is known already
_V = TypeVar("_V", _Tensor, _Value)


class _Graph:
    """The nodes and constants of a graph that grows."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._named: dict[Any, str] = {}

    def run(self, jaxpr: Any, consts: Sequence[Any], values: Sequence[_Value]) -> list[_Value]:
        """Adds what a trace computes; returns its results."""
        known: dict[Any, _Value] = dict(zip(jaxpr.constvars, map(np.asarray, consts), strict=True))
        known |= zip(jaxpr.invars, values, strict=True)

        def read(variable: Any) -> _Value:
            return np.asarray(variable.val) if isinstance(variable, Literal) else known[variable]

        for equation in jaxpr.eqns:
            known |= zip(equation.outvars, self._results(equation, [*map(read, equation.invars)]), strict=True)
        return [*map(read, jaxpr.outvars)]

    def _results(self, equation: Any, values: list[_Value]) -> Sequence[_Value]:
        operation, parameters = equation.primitive.name, equation.params
        if operation == "platform_index":
            return [np.array(parameters["platforms"].index(None))]  # the one for all other platforms
        if operation == "cond":
            chosen = parameters["branches"][int(_known(values[0], operation))]
            return self.run(chosen.jaxpr, chosen.consts, values[1:])
        if inner := parameters.get("jaxpr", parameters.get("call_jaxpr")):  # a function that is called
            return self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), values)
        if not any(isinstance(value, _Tensor) for value in values):
            return [_computed(equation, values)]
        if operation not in _OPERATIONS:
            raise _unknown(operation)
        result = _OPERATIONS[operation](self, equation, *values)
        expected = _shape(equation.outvars[0])
        fits = len(result.shape) == len(expected) and all(
            side in (1, of) for side, of in zip(result.shape, expected, strict=True)
        )
        assert fits, f"{operation}: {result.shape} is not {expected}"
        return [result]

    def add(
        self, kind: str, inputs: Sequence[str], shape: Sequence[int | str], nchw: bool = False, **how: Any
    ) -> _Tensor:
        """Adds a node; `shape` is that of its result in JAX."""
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [*inputs], [name], **how))
        return _Tensor(name, tuple(shape), nchw)

    def name(self, value: _Value, nchw: bool = False) -> str:
        """The name under which a value is in the graph, in that order of its axes."""
        if isinstance(value, _Tensor):
            if value.nchw == nchw:
                return value.name
            key = (value.name, nchw)
            if key not in self._named:
                order = _TO_NCHW if nchw else _TO_NHWC
                self._named[key] = self.add("Transpose", [value.name], value.shape, nchw, perm=order).name
            return self._named[key]
        array = np.array(np.transpose(value, _TO_NCHW) if nchw and value.ndim == 4 else value, order="C")
        key = (array.dtype.str, array.shape, hashlib.sha256(array.data).digest())
        if key not in self._named:
            self._named[key] = f"constant_{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(array, self._named[key]))
        return self._named[key]

    def whole(self, value: _V, variable: Any) -> "_V | _Tensor":
        """A value of JAX's shape, for operations that do not repeat sides of 1 by themselves."""
        expected = _shape(variable)
        if value.shape == expected:
            return value
        if "batch" in expected and value.shape[expected.index("batch")] != "batch":
            raise _unknown("repeating for the batch")
        sides = np.array([1 if side == "batch" else side for side in expected], np.int64)
        return self.add("Expand", [self.name(value), self.name(sides)], expected)

    def axis(self, value: _Value, axis: int) -> int:
        """The place of JAX's axis in the graph."""
        return _PLACE_IN_NCHW[axis] if isinstance(value, _Tensor) and value.nchw else axis


def _unknown(operation: str) -> UserError:
    return UserError(f"format=onnx: the network has an operation that is not known here: {operation}; use stablehlo")


def _shape(variable: Any) -> tuple[int | str, ...]:
    return tuple(side if isinstance(side, int) else str(side) for side in variable.aval.shape)


def _known(value: _Value, operation: str) -> np.ndarray:
    if isinstance(value, _Tensor):
        raise _unknown(f"{operation} by an image")
    return value


def _computed(equation: Any, values: Sequence[Any]) -> np.ndarray:
    """What an operation gives for known numbers. For each image the same, they are kept once, and repeated later."""

    def once(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(once, value))
        return 1 if jax.export.is_symbolic_dim(value) else value

    parameters = {name: once(value) for name, value in equation.params.items()}
    return np.asarray(equation.primitive.bind(*map(jnp.asarray, values), **parameters))


# The operations. Each gets the graph, the equation and its inputs, and returns its result.


def _elementwise(kind: str) -> Callable[..., _Tensor]:
    """A node that treats each number by itself, and repeats sides of 1."""

    def add(graph: _Graph, equation: Any, *values: _Value) -> _Tensor:
        nchw = any(isinstance(value, _Tensor) and value.nchw for value in values)
        shapes = [value.shape for value in values if value.shape]
        shape = [next((side for side in sides if side != 1), 1) for sides in zip(*shapes, strict=True)]
        return graph.add(kind, [graph.name(value, nchw) for value in values], shape, nchw)

    return add


def _same(graph: _Graph, equation: Any, value: _Tensor) -> _Tensor:
    return value


def _cast(graph: _Graph, equation: Any, value: _Tensor) -> _Tensor:
    to = helper.np_dtype_to_tensor_dtype(np.dtype(equation.params["new_dtype"]))
    return graph.add("Cast", [value.name], value.shape, value.nchw, to=to)


def _rsqrt(graph: _Graph, equation: Any, value: _Tensor) -> _Tensor:
    return _elementwise("Reciprocal")(graph, equation, _elementwise("Sqrt")(graph, equation, value))


def _erfc(graph: _Graph, equation: Any, value: _Tensor) -> _Tensor:
    one = np.ones((), np.float32)
    return _elementwise("Sub")(graph, equation, one, _elementwise("Erf")(graph, equation, value))


def _reshape(graph: _Graph, equation: Any, value: _Tensor) -> _Tensor:
    """Also `squeeze` and `expand_dims`."""
    shape = _shape(equation.outvars[0])
    source = graph.name(graph.whole(value, equation.invars[0]))
    sides = np.array([-1 if side == "batch" else side for side in shape], np.int64)
    return graph.add("Reshape", [source, graph.name(sides)], shape)


def _broadcast(graph: _Graph, equation: Any, value: _Tensor) -> _Tensor:
    """Adds axes of 1 alone. What follows repeats them: `_elementwise` by itself, all else by `whole`."""
    axes = equation.params["broadcast_dimensions"]
    shape: list[int | str] = [1] * len(equation.params["shape"])
    for axis, side in zip(axes, value.shape, strict=True):
        shape[axis] = side
    if tuple(shape) == value.shape:
        return value
    sides = np.array([-1 if side == "batch" else side for side in shape], np.int64)
    return graph.add("Reshape", [graph.name(value), graph.name(sides)], shape)


def _transpose(graph: _Graph, equation: Any, value: _Tensor) -> _Tensor:
    order = equation.params["permutation"]
    shape = [value.shape[axis] for axis in order]
    return graph.add("Transpose", [graph.name(value)], shape, perm=[*order])


def _concatenate(graph: _Graph, equation: Any, *values: _Value) -> _Tensor:
    whole = [graph.whole(value, variable) for value, variable in zip(values, equation.invars, strict=True)]
    first = next((value for value in whole if isinstance(value, _Tensor) and value.nchw), None)
    nchw, axis = first is not None, equation.params["dimension"]
    names = [graph.name(value, nchw) for value in whole]
    axis = axis if first is None else graph.axis(first, axis)
    return graph.add("Concat", names, _shape(equation.outvars[0]), nchw, axis=axis)


def _slice(graph: _Graph, equation: Any, value: _Tensor) -> _Tensor:
    value = graph.whole(value, equation.invars[0])
    starts, limits = equation.params["start_indices"], equation.params["limit_indices"]
    steps = equation.params["strides"] or (1,) * len(starts)
    parts = [
        (start, limit, graph.axis(value, axis), step)
        for axis, (start, limit, step) in enumerate(zip(starts, limits, steps, strict=True))
        if isinstance(limit, int) and (start, limit, step) != (0, value.shape[axis], 1)
    ]
    return _sliced(graph, equation, value, parts)


def _rev(graph: _Graph, equation: Any, value: _Tensor) -> _Tensor:
    value = graph.whole(value, equation.invars[0])
    parts = [(-1, -_END, graph.axis(value, axis), -1) for axis in equation.params["dimensions"]]
    return _sliced(graph, equation, value, parts)


def _sliced(graph: _Graph, equation: Any, value: _Tensor, parts: list[tuple[int, ...]]) -> _Tensor:
    columns = [graph.name(np.array(column, np.int64)) for column in zip(*parts, strict=True)]
    return graph.add("Slice", [value.name, *columns], _shape(equation.outvars[0]), value.nchw)


def _pad(graph: _Graph, equation: Any, value: _Tensor, filling: _Value) -> _Tensor:
    value = graph.whole(value, equation.invars[0])
    edges = [(0, 0)] * len(value.shape)
    for axis, (low, high, between) in enumerate(equation.params["padding_config"]):
        if between:
            raise _unknown("padding between pixels")
        edges[graph.axis(value, axis)] = (low, high)
    sides = graph.name(np.array([*zip(*edges, strict=True)], np.int64).ravel())
    filled = graph.name(_known(filling, "padding"))
    return graph.add("Pad", [value.name, sides, filled], _shape(equation.outvars[0]), value.nchw)


def _reduce(kind: str) -> Callable[..., _Tensor]:
    def add(graph: _Graph, equation: Any, value: _Tensor) -> _Tensor:
        value, axes = graph.whole(value, equation.invars[0]), equation.params["axes"]
        nchw = value.nchw and axes == (1, 2)  # for other axes the order of those that stay would be another
        source = graph.name(value, nchw)
        places = np.array([_PLACE_IN_NCHW[axis] if nchw else axis for axis in axes], np.int64)
        return graph.add(kind, [source, graph.name(places)], _shape(equation.outvars[0]), keepdims=0)

    return add


def _product(graph: _Graph, equation: Any, left: _Value, right: _Value) -> _Tensor:
    """A product of matrices, or of tensors along any axes."""
    shape = _shape(equation.outvars[0])
    names = [graph.name(graph.whole(v, of)) for v, of in zip((left, right), equation.invars, strict=True)]
    (of_left, of_right), (batch_left, batch_right) = equation.params["dimension_numbers"]
    if (len(left.shape), of_left, of_right) == (2, (1,), (0,)):
        return graph.add("MatMul", names, shape)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    one = [next(letters) for _ in left.shape]
    other = [next(letters) for _ in right.shape]
    for mine, theirs in zip((*of_left, *batch_left), (*of_right, *batch_right), strict=True):
        other[theirs] = one[mine]
    batch = [one[axis] for axis in batch_left]
    rest = [*(c for i, c in enumerate(one) if i not in (*of_left, *batch_left))]
    rest += [c for i, c in enumerate(other) if i not in (*of_right, *batch_right)]
    return graph.add("Einsum", names, shape, equation=f"{''.join(one)},{''.join(other)}->{''.join(batch + rest)}")


def _convolution(graph: _Graph, equation: Any, images: _Value, kernel: _Value) -> _Tensor:
    how = equation.params
    numbers = how["dimension_numbers"]
    layouts = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)
    if layouts != (_TO_NCHW, (3, 2, 0, 1), _TO_NCHW) or how["batch_group_count"] > 1 or {*how["lhs_dilation"]} != {1}:
        raise _unknown("a transposed convolution")
    weights = graph.name(np.transpose(_known(kernel, "a convolution"), (3, 2, 0, 1)))
    return graph.add(
        "Conv",
        [graph.name(graph.whole(images, equation.invars[0]), nchw=True), weights],
        _shape(equation.outvars[0]),
        nchw=True,
        strides=[*how["window_strides"]],
        dilations=[*how["rhs_dilation"]],
        pads=_pads(how["padding"]),
        group=how["feature_group_count"],
    )


def _pool(kind: str, **more: Any) -> Callable[..., _Tensor]:
    def add(graph: _Graph, equation: Any, images: _Value) -> _Tensor:
        how = equation.params
        dilated = {*how["base_dilation"], *how["window_dilation"]} != {1}
        ends = [(how[name][0], how[name][3]) for name in ("window_dimensions", "window_strides", "padding")]
        if dilated or ends != [(1, 1), (1, 1), ((0, 0), (0, 0))]:
            raise _unknown("a pool of channels")
        source = graph.name(graph.whole(images, equation.invars[0]), nchw=True)
        window, strides, padding = (how[name][1:3] for name in ("window_dimensions", "window_strides", "padding"))
        settings = {"kernel_shape": [*window], "strides": [*strides], "pads": _pads(padding), **more}
        return graph.add(kind, [source], _shape(equation.outvars[0]), nchw=True, **settings)

    return add


def _sum_pool(graph: _Graph, equation: Any, images: _Value) -> _Tensor:
    means = _pool("AveragePool", count_include_pad=1)(graph, equation, images)
    return _elementwise("Mul")(
        graph, equation, means, np.array(np.prod(equation.params["window_dimensions"]), np.float32)
    )


def _pads(padding: Sequence[tuple[int, int]]) -> list[int]:
    """Of height and width: ONNX has both beginnings before both ends."""
    return [int(side) for sides in zip(*padding, strict=True) for side in sides]


_OPERATIONS: Mapping[str, Callable[..., _Tensor]] = {
    "add": _elementwise("Add"),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _cast,
    "copy": _same,
    "div": _elementwise("Div"),
    "dot_general": _product,
    "erfc": _erfc,
    "exp": _elementwise("Exp"),
    "logistic": _elementwise("Sigmoid"),
    "max": _elementwise("Max"),
    "min": _elementwise("Min"),
    "mul": _elementwise("Mul"),
    "neg": _elementwise("Neg"),
    "pad": _pad,
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_window_max": _pool("MaxPool"),
    "reduce_window_sum": _sum_pool,
    "reshape": _reshape,
    "rev": _rev,
    "rsqrt": _rsqrt,
    "slice": _slice,
    "squeeze": _reshape,
    "sub": _elementwise("Sub"),
    "tanh": _elementwise("Tanh"),
    "transpose": _transpose,
}
