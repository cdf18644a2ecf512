"""Text that is too long for a line of the terminal, or of a table's cell, goes on in the next line."""

import shutil
from typing import TextIO

from rich.cells import cell_len, chop_cells

INDENT = 2
LEAST = 30
"""Columns of text in a line, at least; a narrower terminal folds it itself."""


def fold(line: str, width: int, indent: int = 0) -> list[str]:
    """Fold a line at its blanks, and within a word only where that is wider than ``width``.

    All lines but the first begin with ``indent`` blanks.
    """
    parts, blanks = [], ""
    while cell_len(line) > width - len(blanks):
        head = chop_cells(line, width - len(blanks))[0]
        blank = len(head) if line[len(head)] == " " else max(head.rfind(" "), 0)
        at = blank if head[:blank].strip() else len(head)
        parts.append(blanks + line[:at].rstrip())
        line, blanks = line[at:].lstrip(), " " * indent
    return [*parts, blanks + line] if line or not parts else parts


def folded(line: str, stream: TextIO, indent: int | None = None) -> str:
    """Return a line as it fits the terminal; unchanged if ``stream`` is none: programs read lines.

    ``indent``: of the lines behind the first; otherwise, ``INDENT`` more than the line's own.
    """
    if not stream.isatty():
        return line
    if indent is None:
        indent = len(line) - len(line.lstrip(" ")) + INDENT
    return "\n".join(fold(line, max(shutil.get_terminal_size().columns, indent + LEAST), indent))
