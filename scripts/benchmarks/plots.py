"""Plots, by matplotlib where it is installed: a table needs nobody, a picture is a bonus."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from scripts.benchmarks.journal import MissingError

COLOURS = {
    "bulkhead": "tab:blue",
    "bare relay": "tab:gray",
    "vde_switch": "tab:orange",
    "gvproxy": "tab:green",
    "no switch": "lightgray",
}
"""The same contender has the same colour in every plot."""


def grid(rows: int, columns: int) -> tuple[Any, Any]:
    """Return a figure (of matplotlib) and its axes, a table of them.

    Raises MissingError if matplotlib is not installed.
    """
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ImportError:
        raise MissingError(
            f"matplotlib is not installed: {sys.executable} -m pip install matplotlib"
        ) from None
    figure = figures.Figure(figsize=(4.6 * columns, 3.2 * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def by_size(axes: Any, sizes: Sequence[int], lines: Iterable[tuple[str, Sequence[float | None]]]) -> None:
    """Draw a line for each contender over frame sizes, both axes logarithmic; None leaves a gap."""
    for name, values in lines:
        heights = [float("nan") if value is None else value for value in values]
        axes.plot(range(len(sizes)), heights, marker="o", label=name, color=COLOURS.get(name))
    axes.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
    axes.set_yscale("log")
    axes.set_xlabel("bytes of a frame")
    axes.grid(visible=True, alpha=0.3)
