"""Functions that a recipe gives as values of fields, such as a loss of its own: `Config(loss=my_loss)`.

The configuration, and with it `config.json`, holds the function's name and a hash of its source, such as
`my_recipe.py:my_loss@sha256:1a2b3c4d5e6f7a8b`. Nothing is ever imported because of such a text. The function is there
if the recipe was loaded in this process, with the same source; otherwise its use is an error.
"""

import ast
import contextlib
import hashlib
import inspect
import linecache
import re
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flax_resnets.errors import UserError

_FORM = re.compile(r"([^:@]+):(\w+)@sha256:([0-9a-f]{16})")

_functions: dict[str, Callable[..., Any]] = {}


def named(field: str, function: Callable[..., Any]) -> str:
    """The text that stands for a function in the configuration. From then on `function_of` finds it.

    The hash is over the function's definition and all that it uses of the same file: other functions, constants, import
    lines. What these import from other files is not part of it.

    Args:
        field: of the configuration, for the message.
        function: defined by `def` at the top level of a file or of a notebook's cell.

    Raises:
        UserError: it is another kind of function, or its source is not at hand.
    """
    plain = inspect.unwrap(function)
    name = getattr(plain, "__name__", type(function).__name__)
    if not isinstance(plain, types.FunctionType) or plain.__globals__.get(name) is not function:
        raise UserError(
            f"{field}={name}: must be a function that begins with `def` at the top level of a file, so that a resumed "
            "run can be checked against its source; no lambda, partial or inner function"
        )
    path = plain.__code__.co_filename
    linecache.checkcache(path)  # it may have changed since it was last read
    source = "".join(linecache.getlines(path, plain.__globals__))
    if not source:
        raise UserError(f"{field}={name}: its source is not at hand; define it in a file")
    # A notebook's cells have no lasting name.
    file = Path(path).name if Path(plain.__globals__.get("__file__") or "").name == Path(path).name else "__main__"
    text = f"{re.sub('[:@]', '_', file)}:{name}@sha256:{_hash_of(name, source)}"
    _functions[text] = function
    return text


def _hash_of(name: str, source: str) -> str:
    """Hash of a top-level definition and of the top-level statements that it uses, directly or not."""
    statements = ast.parse(source).body
    needed, before = {name}, set()
    while needed != before:
        before = set(needed)
        for statement in statements:
            if needed & _bound(statement):
                needed |= {each.id for each in ast.walk(statement) if isinstance(each, ast.Name)}
    lines = source.splitlines()
    found = []
    for statement in statements:
        if needed & _bound(statement):
            decorators = getattr(statement, "decorator_list", [])
            first = min(each.lineno for each in (statement, *decorators))
            found += [line.rstrip() for line in lines[first - 1 : statement.end_lineno]]
    return hashlib.sha256("\n".join(found).encode(errors="surrogatepass")).hexdigest()[:16]


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement binds."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    stored = {
        each.id for each in ast.walk(statement) if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load)
    }
    aliases = [each for each in ast.walk(statement) if isinstance(each, ast.alias)]
    return stored | {(each.asname or each.name).partition(".")[0] for each in aliases}


def is_named(text: Any) -> bool:
    """Whether a field's value stands for a function.

    Example:
        >>> is_named("my_recipe.py:my_loss@sha256:0123456789abcdef"), is_named("bce")
        (True, False)
    """
    return isinstance(text, str) and _FORM.fullmatch(text) is not None


def function_of(field: str, text: str) -> Callable[..., Any]:
    """The function for which a field's value stands.

    Raises:
        UserError: it was not loaded in this process.
    """
    if text in _functions:
        return _functions[text]
    form = _FORM.fullmatch(text)
    assert form is not None
    file, name, _ = form.groups()
    which = f"is the function {name} of {file}, with this source"
    raise UserError(f"{field}={text}: {which}; only that recipe gives it: --config={file}")


def of_each_image(field: str, text: str, what: str) -> Callable[[Any, Any], Any]:
    """A field's function of logits and labels, which must return a float32 number for each image.

    It raises UserError if it fails, or returns another shape or dtype. As it is traced, that is before anything is
    compiled.

    Args:
        field: of the configuration.
        text: its value, which stands for the function.
        what: the result in words.

    Raises:
        UserError: it was not loaded in this process.
    """
    function = function_of(field, text)

    def checked(logits: Any, labels: Any) -> Any:
        with blamed(field, text):
            figures = function(logits, labels)
        check_result(field, text, figures, logits.shape[:1], "float32", what)
        return figures

    return checked


@contextlib.contextmanager
def blamed(field: str, text: str) -> Iterator[None]:
    """A context that turns an error of a field's function into a `UserError` with its line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        path = inspect.unwrap(_functions[text]).__code__.co_filename
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        line = f"line {lines[-1]}: " if lines else ""
        what = str(error).strip().partition("\n")[0][:300]
        raise UserError(f"{field}={text}: {line}{type(error).__name__}: {what}") from error


def check_result(field: str, text: str, result: Any, shape: tuple[int, ...], dtype: str, what: str) -> None:
    """Raises UserError unless a function returned an array of this shape and dtype.

    Args:
        field: of the configuration.
        text: its value, which stands for the function.
        result: of the function; it may be traced.
        shape: that it must have.
        dtype: that it must have.
        what: the result in words.
    """
    is_array = hasattr(result, "shape") and hasattr(result, "dtype")
    found = f"{result.dtype} {tuple(result.shape)}" if is_array else f"{result!s:.100}"
    if found != f"{dtype} {shape}":
        raise UserError(f"{field}={text}: returned {found}, must return {what}, {dtype} {shape}")
