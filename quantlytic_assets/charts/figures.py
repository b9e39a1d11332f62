"""What all charts share: a figure on a canvas of its own, colours, tidy axes and labels of times.

matplotlib is loaded when something is drawn, and without pyplot's global state, so that several threads of a process
do not meet. Runs draw nothing: charts are made when somebody opens them (`pages`), or with a trained model.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Distinguishable with any colour vision, on screen and in grey (Okabe and Ito's palette).
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
GREY, SHADE = "#555555", "#f0f4f8"


# Part of a figure's full width and height: Dagster cuts off what is wider than a cell of its tables.
_part: ContextVar[tuple[float, float]] = ContextVar("part", default=(1.0, 1.0))
_SMALL = (0.58, 0.75)


@contextmanager
def small_figures() -> Iterator[None]:
    """What is drawn meanwhile, in this thread, fits into a cell of Dagster's tables; letters stay as large."""
    token = _part.set(_SMALL)
    try:
        yield
    finally:
        _part.reset(token)


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches on a canvas of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    wide, high = _part.get()
    figure = Figure(figsize=(width * wide, height * high), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure) -> bytes:
    """The figure as PNG bytes."""
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()


def tidy(axes: Axes, label: str, grid: bool = True) -> None:
    """Label the values, and take away what only takes room."""
    axes.set_ylabel(label, fontsize=9)
    axes.tick_params(length=2, labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)


def short_numbers(axes: Axes) -> None:
    """Label large values as 12 k or 3 M."""
    from matplotlib.ticker import EngFormatter

    axes.yaxis.set_major_formatter(EngFormatter(places=None, sep=" "))


def whole_numbers(axes: Axes) -> None:
    """Label values of a thousand and more with commas."""
    axes.yaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}")


def title(axes: Axes, text: str) -> None:
    """A title above the left corner."""
    axes.set_title(text, fontsize=10, loc="left")


def legend(axes: Axes, **options: Any) -> None:
    """A small legend without a frame, where anything has a name."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(**{"fontsize": 8, "frameon": False, "loc": "upper left", "ncols": 4, **options})


def time_axis(axes: Axes, times: Sequence[date], most: int = 7) -> None:
    """Label an axis of positions 0 … n-1 with their times (UTC) or days, so that closed hours take no room.

    Times that span less than three days are shown with their hours, else days alone.
    """
    if not len(times):
        axes.set_xticks([])
        return
    marks = sorted({round(i * (len(times) - 1) / (most - 1)) for i in range(most)})
    short = isinstance(times[0], datetime) and (times[-1] - times[0]).days < 3
    form = "%H:%M\n%d %b %Y" if short else "%d %b\n%Y"
    shown = [times[mark].strftime(form) for mark in marks]
    # A day, or a year, is said where it changes.
    said = [shown[0]]
    for before, label in pairwise(shown):
        same = before.partition("\n")[2] == label.partition("\n")[2]
        said.append(label.partition("\n")[0] if same else label)
    axes.set_xticks(marks, said)
    axes.set_xlim(-0.8, len(times) - 0.2)


def nothing_to_draw(text: str) -> bytes:
    """A chart that says why there is none."""
    figure = new_figure(8, 1.6)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=11, color=GREY, wrap=True)
    return to_png(figure)
