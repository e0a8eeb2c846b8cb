"""Plain text tables."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """Rows as text with aligned columns.

    Args:
        header: a name for each column.
        rows: rows of cells, one cell for each column.
        left: number of columns to align left; the columns after them are aligned right, as numbers are.

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
