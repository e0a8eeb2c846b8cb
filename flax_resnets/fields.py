"""Groups of configuration fields. Fields are typed and frozen; they are checked when a group is made.

A group is a dataclass derived from `Fields`, in the same file as the code that it configures. A run's `Config` derives
from all groups, so it has all their fields.
"""

import ast
import contextlib
import dataclasses
import difflib
import inspect
import types
import typing
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from flax_resnets import own
from flax_resnets.errors import UserError


class Rule(NamedTuple):
    """A condition on the values of some fields, beyond their types.

    Attributes:
        names: names of the fields, separated by spaces.
        holds: a function that tells whether a value is allowed. It is not called for None, which is always allowed.
        right: the allowed values, in words that follow "must be".
    """

    names: str
    holds: Callable[[Any], bool]
    right: str


@dataclass(frozen=True, eq=False)  # hashed by identity: Python hashes annotations, and a dict has no hash
class OneOf:
    """Marks a text field whose value must be a key of a table: `Annotated[str, OneOf(OPTIMIZERS)]`.

    If its type has more than `str`, as in `Annotated[str | Loss, OneOf(LOSSES)]`, it may also be a function. In the
    configuration it is then a text; see `flax_resnets.own`.
    """

    table: Collection[str]


@dataclass(frozen=True, kw_only=True)
class Fields:
    """A group of fields. Making an object checks the type of every field and every rule in `RULES`.

    Types may be `int`, `float`, `bool`, `str`, `Literal`, `OneOf`, tuples and dicts of these, and unions with None.

    Attributes:
        RULES: rules for this group's fields.

    Raises:
        UserError: a field has the wrong type, or a value that is not allowed.

    Example:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Blur(Fields):
        ...     blur: float = 0.0
        ...     RULES = (Rule("blur", lambda v: v >= 0, "at least 0"),)
        >>> Blur(blur=-1)
        Traceback (most recent call last):
        ...
        flax_resnets.errors.UserError: blur=-1.0: must be at least 0
    """

    RULES: ClassVar[tuple[Rule, ...]] = ()

    def __post_init__(self):
        for name, annotation in field_types(type(self)).items():
            value = checked(name, getattr(self, name), annotation)
            object.__setattr__(self, name, value)
        for group in type(self).__mro__:
            for names, holds, right in vars(group).get("RULES", ()):
                for name in names.split():
                    value = getattr(self, name)
                    if value is not None and not holds(value):
                        raise UserError(f"{name}={shown(value)}: must be {right}")
        self.check()

    def check(self) -> None:
        """Raises UserError if fields contradict each other. An override must call its parent's `check` too."""


@cache
def field_types(group: type[Fields]) -> Mapping[str, Any]:
    """The type of each field of a group, by name."""
    hints = typing.get_type_hints(group, include_extras=True)
    names = {field.name for field in dataclasses.fields(group)}
    # Fields in the order of the bases. The dataclasses module lists the last base's fields first.
    own = [inspect.get_annotations(each) for each in (*group.__mro__[1:], group)]
    return {name: hints[name] for annotations in own for name in annotations if name in names}


# Step numbers and counts are int32 on the devices.
MOST = 2**31 - 1
_LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127
# Number of characters of an unknown name or choice that are compared with the known ones.
LONGEST_NAME = 60


def parsed(name: str, text: str, annotation: Any) -> Any:
    """Parses the text of `--config.name=text` into a Python value. `checked` then converts that to the field's type."""
    options = _alternatives(annotation)
    if type(None) in options and text.lower() == "none":
        return None
    if bool in options and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if str in options or _choices(options[0]) is not None or any(text in (_choices(each) or ()) for each in options):
        return text
    if typing.get_origin(options[0]) is tuple:
        whole = literal(text)
        if isinstance(whole, tuple | list):
            return whole
        return tuple(literal(part) for part in text.split(",") if part.strip())
    return literal(text)


def literal(text: str) -> Any:
    """A Python literal, or the text itself if it is not one.

    Example:
        >>> literal("1e-3"), literal("small")
        (0.001, 'small')
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns about literals such as "1if", which stay text here
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def checked(name: str, value: Any, annotation: Any) -> Any:
    """Converts a value to its field's type (a list to a tuple, an int to a float); raises UserError if that fails."""
    for option in _alternatives(annotation):
        if option is type(None) and value is None:
            return None
        if option is float and type(value) is not bool and isinstance(value, Real) and _fits_float32(value):
            return float(value)
        if option is int and type(value) is not bool and isinstance(value, Integral):
            return int(value)  # numpy's, too
        if option in (bool, str) and type(value) is option:
            return value
        if type(value) is str and value in (_choices(option) or ()):
            return value
        if _takes_functions(option) and (callable(value) or own.is_named(value)):
            return value if isinstance(value, str) else own.named(name, typing.cast(Any, value))
        origin = typing.get_origin(option)
        if origin is dict and isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return dict(value)
        if origin is tuple and isinstance(value, tuple | list):
            kinds = typing.get_args(option)
            if kinds[-1] is Ellipsis:
                kinds = (kinds[0],) * len(value)
            if len(value) == len(kinds):
                with contextlib.suppress(UserError):  # about one item; the error below shows the whole value
                    return tuple(checked(name, item, kind) for item, kind in zip(value, kinds, strict=True))
    raise UserError(f"{name}={shown(value)}: must be {_in_words(annotation)}{_close_choice(value, annotation)}")


def _fits_float32(number: Real) -> bool:
    return abs(number) <= _LARGEST_FLOAT32  # False for NaN


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)  # `Literal[...] | None` is a typing.Union
    return typing.get_args(annotation) if union else (annotation,)


def _choices(option: Any) -> tuple[str, ...] | None:
    """The texts that are allowed as a value; None if the type has no list of them."""
    if typing.get_origin(option) is Literal:
        return typing.get_args(option)
    if typing.get_origin(option) is Annotated:
        return tuple(option.__metadata__[0].table)
    return None


def _takes_functions(option: Any) -> bool:
    return typing.get_origin(option) is Annotated and option.__origin__ is not str


def _in_words(annotation: Any) -> str:
    words = {
        int: "a whole number",
        float: "a number that float32 holds",
        bool: "true or false",
        str: "text",
        type(None): "none",
    }
    parts = []
    for option in _alternatives(annotation):
        origin, args = typing.get_origin(option), typing.get_args(option)
        if (choices := _choices(option)) is not None:
            own_function = ["a function of the recipe"] if _takes_functions(option) else []
            parts += [
                *([("one of " if len(choices) > 1 else "") + ", ".join(choices)] if choices else []),
                *own_function,
            ]
        elif origin is tuple:
            if args[-1] is not Ellipsis:
                parts.append(f"{len(args)} numbers with a comma between")
            elif typing.get_origin(args[0]) is tuple:
                parts.append("pairs of numbers, each with a comma behind, such as (2,64),(4,96),")
            else:
                parts.append(f"{'names' if args[0] is str else 'numbers'} with commas between")
        elif origin is dict:
            parts.append("a dict from option names to values")
        else:
            parts.append(words[option])
    return " or ".join(parts)


# Other libraries' names for a choice, in lower case and without the characters between words, and the name here.
_ELSEWHERE = {
    **dict.fromkeys(("fp16", "half", "f16", "16", "16mixed", "amp"), "float16"),
    **dict.fromkeys(("bf16", "bfloat", "bf16mixed", "mixed", "mixedbfloat16"), "bfloat16"),
    **dict.fromkeys(("fp32", "f32", "float", "single", "full", "32", "tf32", "float64", "fp64", "double"), "float32"),
    **dict.fromkeys(("adam", "nadam"), "adamw"),
    **dict.fromkeys(("momentum", "nesterov", "sgdm"), "sgd"),
    **dict.fromkeys(("radam", "lookahead", "ranger21"), "ranger"),
    **dict.fromkeys(("lars",), "lamb"),
    **dict.fromkeys(("1cycle", "fitonecycle", "onecyclelr"), "one_cycle"),
    **dict.fromkeys(("cosine", "cos", "cosineannealing", "cosinedecay", "cosinelr"), "warmup_cosine"),
    **dict.fromkeys(("fitflatcos", "flatcos"), "flat_cosine"),
    **dict.fromkeys(("steplr", "multistep", "multisteplr", "piecewise"), "step"),
    **dict.fromkeys(("none", "fixed", "flat"), "constant"),
    **dict.fromkeys(("ce", "xent", "softmax", "nll", "categoricalcrossentropy", "crossentropyloss"), "cross_entropy"),
    **dict.fromkeys(("binary", "binarycrossentropy", "bcewithlogits", "sigmoid"), "bce"),
    **dict.fromkeys(("ra", "randaug"), "randaugment"),
    **dict.fromkeys(("ta", "trivial", "taw", "trivialaugmentwide"), "trivialaugment"),
    **dict.fromkeys(("stretch", "distort", "resize"), "squash"),
    **dict.fromkeys(("center", "centre", "centercrop", "centrecrop"), "crop"),
    **dict.fromkeys(("memory", "ram", "disk", "decoded"), "cached"),
    **dict.fromkeys(("ignore", "drop", "delete", "remove"), "skip"),
    **dict.fromkeys(("raise", "error", "fail", "abort"), "stop"),
    **dict.fromkeys(("mean", "ema"), "average"),
    **dict.fromkeys(("weighted", "inverse", "auto", "even", "uniform"), "balanced"),
    **dict.fromkeys(("random", "shuffled"), "shuffle"),
}


def _plain(value: Any) -> str:
    return "".join(character for character in shown(value)[:LONGEST_NAME].lower() if character.isalnum())


def _close_choice(value: Any, annotation: Any) -> str:
    choices = [choice for option in _alternatives(annotation) for choice in _choices(option) or ()]
    word = _plain(value)
    close = [choice for choice in choices if _plain(choice) == word or choice == _ELSEWHERE.get(word)]
    close = close or difflib.get_close_matches(shown(value)[:LONGEST_NAME], choices, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def shown(value: Any) -> str:
    """A value as it is printed in a message."""
    try:
        return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    except (ValueError, RecursionError) as error:  # Python refuses to print integers of thousands of digits
        return f"({error})"
