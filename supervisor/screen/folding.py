"""Sentences on a terminal: a line that is too long goes on, indented, in the next one."""

import shutil
import textwrap
from typing import TextIO

INDENT = 2
LEAST = 30
"""Columns of a line, at least; a narrower terminal folds it itself."""


def folded(line: str, stream: TextIO) -> str:
    """Return a line as it fits the terminal; unchanged if ``stream`` is none: programs read lines."""
    if not stream.isatty():
        return line
    blanks = len(line) - len(line.lstrip(" ")) + INDENT
    width = max(shutil.get_terminal_size().columns, LEAST)
    wrapper = textwrap.TextWrapper(
        width, subsequent_indent=" " * blanks, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.fill(line)
