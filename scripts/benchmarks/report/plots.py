"""Plots, by matplotlib if it is installed; tables do not need it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from scripts.benchmarks.report.journal import MissingError

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
    figure = _figure(4.6 * columns, 3.2 * rows)
    return figure, figure.subplots(rows, columns, squeeze=False)


def bars(count: int) -> tuple[Any, Any]:
    """Return a figure and its axes for so many bars, one under the other; raises MissingError."""
    figure = _figure(9.2, 1.5 + 0.7 * count)
    return figure, figure.subplots()


def _figure(width: float, height: float) -> Any:
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ImportError:
        raise MissingError(
            f"matplotlib is not installed: {sys.executable} -m pip install matplotlib"
        ) from None
    return figures.Figure(figsize=(width, height), layout="constrained")


def by_size(axes: Any, sizes: Sequence[int], name: str, heights: Iterable[float | None]) -> None:
    """Draw a contender's line over frame sizes, the other axis logarithmic; None leaves a gap."""
    values = [float("nan") if height is None else height for height in heights]
    axes.plot(range(len(sizes)), values, marker="o", label=name, color=COLOURS.get(name))
    axes.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
    axes.set_yscale("log")
    for formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("bytes of a frame")
    axes.grid(visible=True, alpha=0.3)
