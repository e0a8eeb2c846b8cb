"""Pages of docs/ whose prose stands in the page, while a script writes the part between two markers."""

from pathlib import Path

from flax_resnets.errors import UserError

BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"


def with_generated(path: Path, generated: str) -> str:
    """The text of a page with a new part between the markers. The rest of the page stays as it is.

    Args:
        path: the page, which must exist.
        generated: the new part, without the markers.

    Raises:
        UserError: there is no such page, or it does not have each marker once, in order.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(f"{path}: must have the lines {BEGIN} and {END}, once each; the text between them is generated")
    return f"{before}{BEGIN}\n\n{generated.strip()}\n\n{END}{after}"
