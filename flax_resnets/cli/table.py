"""Rows of text put under each other."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """Aligned columns, as plain text.

    Args:
        header: a name for each column.
        rows: as many cells each.
        left: so many columns are flush left; those after them, numbers, flush right.

    Example:
        >>> print(table(["name", "size"], [["one", "1"], ["two", "22"]], left=1))
        name  size
        one      1
        two     22
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
