"""The plots of a report and of a comparison, each drawn by matplotlib and returned as the text of one inline SVG.

They are drawn 360 units wide, the width of a phone; the page scales them. Colours are CSS variables, so a plot
follows the page into the dark. The same input gives the same bytes.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

WIDTH = 360
EDGE = 6
SMALL = 10.5
PARTS = ("load", "waiting", "prompt", "thinking", "answer")  # of a reply's seconds, in the order of time
SHAPES = {"PASS": "o", "FAIL": "X", "INCONCLUSIVE": "D", "NOT MEASURED": "s"}

# Stand-ins that _svg turns into var(--name): matplotlib knows only real colours.
_NAMES = ("ink", "muted", "line", "soft", "card", "pass", "fail", "open", "none", "pass-bg", *PARTS)
_COLOUR = {name: f"#0001{index:02x}" for index, name in enumerate(_NAMES)}
_TONE = {"PASS": "pass", "FAIL": "fail", "INCONCLUSIVE": "open", "NOT MEASURED": "none"}
# Model names and titles can hold a "$": it is text here, never mathematics.
_RC: dict[Any, Any] = {"text.parse_math": False, "svg.fonttype": "none", "font.size": 12}


@dataclass(frozen=True, slots=True)
class Interval:
    """A criterion in the first plot: values as fractions of its scale (0 left, 1 right), and the words beside them."""

    title: str
    verdict: str
    label: str
    bar_label: str
    bar: float
    good_above: bool
    score: float | None
    low: float | None
    high: float | None


@rc_context(_RC)
def intervals(rows: Sequence[Interval]) -> str:
    """A line a criterion: its score and interval, the bar as a tick, and the side of the bar that passes shaded."""
    if not rows:
        return ""
    step, first = 52, 32
    figure, axes = _canvas(step * len(rows))
    y = [first + step * index for index in range(len(rows))]
    lines: list[tuple[list[tuple[float, float]], str, float]] = []
    for at, row in zip(y, rows, strict=True):
        bar, tone = _x(row.bar), _COLOUR[_TONE.get(row.verdict, "none")]
        good = (bar, _x(1)) if row.good_above else (_x(0), bar)
        lines.append(([(_x(0), at), (_x(1), at)], _COLOUR["soft"], 10))
        lines.append(([(good[0], at), (good[1], at)], _COLOUR["pass-bg"], 10))
        if row.low is not None or row.high is not None:
            low, high = _x(row.low if row.low is not None else 0), _x(row.high if row.high is not None else 1)
            lines.append(([(low, at), (max(high, low + 1), at)], tone, 3.6))
        lines.append(([(bar, at - 9), (bar, at + 9)], _COLOUR["ink"], 1.6))
        axes.text(EDGE, at - 15, row.title, color=_COLOUR["ink"])
        axes.text(WIDTH - EDGE, at - 15, row.label, color=tone, ha="right", weight="bold")
        near_right = bar > WIDTH * 0.6
        axes.text(bar + (-6 if near_right else 6), at + 17, row.bar_label, color=_COLOUR["muted"], fontsize=SMALL,
                  ha="right" if near_right else "left")
    axes.add_collection(LineCollection([line for line, _, _ in lines], colors=[colour for _, colour, _ in lines],
                                       linewidths=[width for _, _, width in lines]))
    for verdict, shape in SHAPES.items():
        points = [(_x(row.score), at) for at, row in zip(y, rows, strict=True)
                  if row.verdict == verdict and row.score is not None]
        if points:
            axes.scatter([x for x, _ in points], [at for _, at in points], marker=shape, s=84, color=_COLOUR[_TONE[verdict]],
                         edgecolors=_COLOUR["card"], linewidths=1.2, zorder=3)
    return _svg(figure, "intervals", "Score and 95 % interval of each criterion against its bar")


@rc_context(_RC)
def latency(turns: pd.DataFrame, bars: Mapping[str, float], titles: Mapping[str, str]) -> str:
    """A panel a class of question: its replies from fastest to slowest, each a stack of the seconds of PARTS.

    `turns` has a row a reply with the columns `complexity`, `wall` and PARTS, in seconds. `bars` holds the bar of
    a class in seconds; `titles` names and orders the classes.
    """
    classes = [name for name in titles if (turns["complexity"] == name).any()]
    if not classes:
        return ""
    panel, top, foot = 140, 26, 26
    height = (panel + top + foot) * len(classes)
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    for index, name in enumerate(classes):
        bottom = height - (index + 1) * (panel + top + foot) + foot
        axes = figure.add_axes((36 / WIDTH, bottom / height, (WIDTH - 36 - EDGE) / WIDTH, panel / height))
        _stack(axes, turns[turns["complexity"] == name].sort_values(["wall", *PARTS]), bars.get(name))
        axes.text(0, 1.07, titles[name], transform=axes.transAxes, color=_COLOUR["ink"])
    return _svg(figure, "latency", "Seconds of each reply, fastest to slowest, split into " + ", ".join(PARTS))


@rc_context(_RC)
def iterations(outcomes: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """A row a class: how many replies used 1, 2, 3... iterations, with the band drawn behind them.

    `outcomes` has the columns `complexity`, `iterations`, `lo` and `hi`. More than 12 iterations are drawn at 12.
    """
    classes = [name for name in titles if (outcomes["complexity"] == name).any()]
    if not classes:
        return ""
    last = int(min(12, max(9, outcomes["iterations"].max())))
    row, head, cell = 68, 20, (WIDTH - 2 * EDGE) / last
    figure, axes = _canvas(row * len(classes) + 30)
    for index, name in enumerate(classes):
        group, y = outcomes[outcomes["complexity"] == name], row * index + head + 22
        lo, hi = float(group["lo"].median()), float(min(group["hi"].median(), last))
        axes.add_patch(FancyBboxPatch((EDGE + (lo - 1) * cell + 3, y - 17), (hi - lo + 1) * cell - 6, 34,
                                      boxstyle="round,pad=0,rounding_size=8", facecolor=_COLOUR["pass-bg"],
                                      edgecolor=_COLOUR["pass"], linewidth=0.8))
        axes.text(EDGE, y - 24, titles[name], color=_COLOUR["ink"])
        counts = group["iterations"].clip(lower=1, upper=last).round().astype(int).value_counts().sort_index()
        inside = [lo <= k <= hi for k in counts.index]
        x = [EDGE + (k - 0.5) * cell for k in counts.index]
        axes.scatter(x, [y] * len(x), s=[130 + 300 * count / counts.max() for count in counts], linewidths=0,
                     color=[_COLOUR["pass" if good else "fail"] for good in inside], zorder=2)
        for at, count in zip(x, counts, strict=True):
            axes.text(at, y + 0.5, str(count), color=_COLOUR["card"], ha="center", va="center_baseline",
                      fontsize=SMALL, weight="bold")
    for k in range(1, last + 1):
        label = f"{k}+" if k == last and outcomes["iterations"].max() > last else str(k)
        axes.text(EDGE + (k - 0.5) * cell, row * len(classes) + 18, label, color=_COLOUR["muted"], ha="center",
                  fontsize=SMALL)
    return _svg(figure, "iterations", "Iterations used by the replies of each class, against the band of the class")


@dataclass(frozen=True, slots=True)
class Point:
    """A model in the plot of quality against latency: its number there, quality as a share, seconds, and their intervals.

    `front`: no other model is both better and faster.
    """

    number: int
    quality: float
    seconds: float
    qualities: tuple[float, float]
    times: tuple[float | None, float | None]
    front: bool


@rc_context(_RC)
def pareto(points: Sequence[Point], bar: float | None, axis: str) -> str:
    """Quality upwards against seconds to the right (logarithmic), a numbered circle a model; `bar` in seconds, `axis` names them."""
    if not points:
        return ""
    height, left, foot = 270, 42, 44
    times = [time for point in points for time in (point.seconds, *point.times) if time]
    near = [bar] if bar and max(times) / 20 < bar < 20 * max(times) else []
    span = (min(times + near) / 1.35, max(times + near) * 1.35)
    shares = [share for point in points for share in (point.quality, *point.qualities)]
    bottom, top = max(0.0, np.floor(10 * min(shares) - 0.2) / 10), min(1.0, np.ceil(10 * max(shares) + 0.2) / 10)
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    axes = figure.add_axes((left / WIDTH, foot / height, (WIDTH - left - EDGE) / WIDTH, (height - foot - 16) / height))
    axes.set(xscale="log", xlim=span, ylim=(bottom, top))
    for point in points:
        low, high = (point.seconds if time is None else time for time in point.times)
        axes.plot([low, high], [point.quality] * 2, color=_COLOUR["none"], linewidth=1.6, alpha=0.45)
        axes.plot([point.seconds] * 2, point.qualities, color=_COLOUR["none"], linewidth=1.6, alpha=0.45)
    front = sorted((point.seconds, point.quality) for point in points if point.front)
    axes.step([*(seconds for seconds, _ in front), span[1]], [*(share for _, share in front), front[-1][1]], where="post",
              color=_COLOUR["pass"], linewidth=1.2, linestyle=(0, (4, 3)))
    if near:
        axes.axvline(near[0], color=_COLOUR["ink"], linewidth=1.2, linestyle=(0, (4, 3)))
        axes.text(near[0], 1.02, f"bar {near[0]:g} s", transform=axes.get_xaxis_transform(), color=_COLOUR["ink"], fontsize=SMALL, ha="center")
    for point in points:
        axes.scatter([point.seconds], [point.quality], s=330, color=_COLOUR["pass" if point.front else "none"],
                     edgecolors=_COLOUR["card"], linewidths=1.5, zorder=3)
        axes.text(point.seconds, point.quality, str(point.number), color=_COLOUR["card"], ha="center", va="center_baseline",
                  fontsize=12, weight="bold", zorder=4)
    _scales(axes, span, (bottom, top))
    axes.text(0.5, -0.185, axis, transform=axes.transAxes, color=_COLOUR["muted"], fontsize=SMALL, ha="center")
    return _svg(figure, "pareto", "Quality of each model against its seconds; up and to the left is better")


def _scales(axes: Axes, span: tuple[float, float], shares: tuple[float, float]) -> None:
    """The ticks of `pareto`: 1, 2 and 5 of every decade, and tenths of quality."""
    ticks = [size * 10.0**power for power in range(-4, 5) for size in (1, 2, 5) if span[0] <= size * 10.0**power <= span[1]]
    axes.set_xticks(ticks, [f"{tick:g} s" for tick in ticks])
    axes.set_xticks([], minor=True)
    tenths = [tenth / 10 for tenth in range(11) if shares[0] - 1e-9 <= tenth / 10 <= shares[1] + 1e-9]
    tenths = tenths if len(tenths) < 7 else tenths[::2]
    axes.set_yticks(tenths, [f"{100 * tenth:.0f} %" for tenth in tenths])
    axes.tick_params(which="both", length=0, pad=4, labelsize=SMALL, labelcolor=_COLOUR["muted"])
    axes.grid(visible=True, color=_COLOUR["soft"], linewidth=1)
    axes.set_axisbelow(True)
    axes.set_facecolor("none")
    for spine in axes.spines.values():
        spine.set_color(_COLOUR["line"])


def _stack(axes: Axes, turns: pd.DataFrame, bar: float | None) -> None:
    """One panel of `latency`."""
    edges = np.linspace(0, 100, len(turns) + 1)
    floor = np.zeros(len(turns) + 1)
    for part in PARTS:
        seconds = turns[part].to_numpy(dtype=float)
        if not seconds.any():
            continue
        roof = floor + np.append(seconds, seconds[-1])
        axes.fill_between(edges, floor, roof, step="post", color=_COLOUR[part], linewidth=0)
        floor = roof
    slowest = max(float(turns["wall"].max()), 0.1)
    drawn = bar is not None and bar <= 3 * slowest
    axes.set(xlim=(0, 100), ylim=(0, max(slowest, bar or 0) * 1.12 if drawn else slowest * 1.12))
    if bar is not None and drawn:
        axes.axhline(bar, color=_COLOUR["ink"], linewidth=1.2, linestyle=(0, (4, 3)))
    if bar is not None:
        axes.text(1.5, bar if drawn else slowest * 1.1, f"bar {bar:g} s" if drawn else f"bar {bar:g} s, far above",
                  color=_COLOUR["ink"], fontsize=SMALL, va="bottom" if drawn else "top")
    axes.axvline(95, color=_COLOUR["muted"], linewidth=0.8, linestyle=(0, (1, 2)))
    axes.set_xticks([0, 50, 95], ["fastest", "median", "p95"])
    axes.get_xticklabels()[0].set_horizontalalignment("left")
    ticks = _ticks(axes.get_ylim()[1])
    axes.set_yticks(ticks, [f"{tick:g} s" for tick in ticks])
    axes.tick_params(length=0, pad=4, labelsize=SMALL, labelcolor=_COLOUR["muted"])
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_COLOUR["line"])


def _ticks(top: float) -> list[float]:
    """One to three round numbers up to `top`."""
    step = 10.0 ** np.floor(np.log10(top))
    size = next(size for size in (0.2, 0.5, 1, 2, 5) if top / (step * size) < 4)
    return [float(f"{step * size * count:.6g}") for count in range(1, int(top / (step * size)) + 1)]


def _x(fraction: float) -> float:
    return EDGE + min(max(fraction, 0.0), 1.0) * (WIDTH - 2 * EDGE)


def _canvas(height: float) -> tuple[Figure, Axes]:
    """A figure whose data coordinates are the units of its SVG, downwards."""
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def _svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an element for the page: no prologue, no date, no fixed size, no style that leaks."""
    figure.patch.set_visible(False)
    width, height = (round(inches * 72) for inches in figure.get_size_inches())
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": f"jessy-evals {name}"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the browser has the font
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    body = buffer.getvalue().split("<svg", 1)[1].split(">", 1)[1]
    body = re.sub(r"\s*<(metadata|style)\b.*?</\1>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[a-zA-Z]+_\d+">', "<g>", body)
    body = re.sub(r"(fill|stroke): #0001([0-9a-f]{2})", lambda hit: f"{hit[1]}: var(--{_NAMES[int(hit[2], 16)]})", body)
    return (f'<svg class="plot" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {width} {height}" '
            f'role="img" aria-label="{html.escape(label)}">{body.rstrip()}')
