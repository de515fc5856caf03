"""How figures look: sizes of venues, series that differ in grey too, grids of panels, numbers as texts."""
import math
import textwrap

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

# Widths in inches: of the text and of one column, from the venues' style files (one column of text: a bit more than half
# of it); font size in points.
VENUES = {
    "neurips": {"text": 5.5, "column": 3.4, "font": 8, "family": "STIXGeneral"},
    "acl": {"text": 6.3, "column": 3.03, "font": 8, "family": "STIXGeneral"},
    "ieee": {"text": 7.16, "column": 3.5, "font": 8, "family": "STIXGeneral"},
    "slides": {"text": 10.0, "column": 6.0, "font": 14, "family": "DejaVu Sans"},
}

# Okabe and Ito's colours without yellow, which does not show on white.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "*"]
LINES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2))]
HATCHES = ["", "////", "....", "xxxx", "\\\\\\\\", "++++", "oo", "----"]
GREY = "#666666"
MAP = "cividis"  # lightness grows with the value; made for colour-blind readers
PANEL_COLUMNS = 3


def configure(venue):
    """Fonts are embedded as they are (Type 42); texts of records are never markup; names in an SVG are not drawn by lot."""
    font = VENUES[venue]["font"]
    matplotlib.rcParams.update({
        "pdf.fonttype": 42, "svg.hashsalt": "kvsweep", "text.parse_math": False, "font.family": VENUES[venue]["family"],
        "font.size": font, "axes.titlesize": font, "axes.labelsize": font, "legend.fontsize": font - 1,
        "xtick.labelsize": font - 1, "ytick.labelsize": font - 1, "axes.linewidth": 0.6 * font / 8,
        "lines.linewidth": 1.0 * font / 8, "lines.markersize": 3.6 * font / 8, "xtick.major.width": 0.6 * font / 8,
        "ytick.major.width": 0.6 * font / 8, "axes.spines.top": False, "axes.spines.right": False,
        "hatch.linewidth": 0.5 * font / 8, "legend.frameon": False, "axes.unicode_minus": True})


def series(index):
    """Of the index-th of many series: no two of the first 210 share marker and line style and colour."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)],
            "linestyle": LINES[index % len(LINES)]}


def swatch(style, label, filled=True):
    return Line2D([], [], **style, label=label, markerfacecolor=style["color"] if filled else "white")


class Page:
    """A figure of `count` panels, three a row, with room for a legend below."""

    def __init__(self, venue, count, height=1.55, columns=None, share_y=False):
        size = VENUES[venue]
        self.scale = size["font"] / 8
        self.font = size["font"]
        columns = min(count, columns or PANEL_COLUMNS)
        rows = math.ceil(count / columns)
        self.width = size["column"] if columns == 1 else size["text"]
        self.figure = Figure(figsize=(self.width, rows * height * self.scale), layout="constrained")
        self.figure.get_layout_engine().set(w_pad=0.03 * self.scale, h_pad=0.03 * self.scale)
        axes = self.figure.subplots(rows, columns, squeeze=False, sharey=share_y).flatten().tolist()
        for unused in axes[count:]:
            unused.remove()
        self.axes = axes[:count]
        self.columns = columns
        self.left = {i for i in range(count) if i % columns == 0}
        self.lowest = {i for i in range(count) if i + columns >= count}

    def title(self, axis, text, share=0.95):
        """Above a panel, on as many lines as it needs; `share` of the width is the panels'."""
        characters = int(self.width * share / self.columns * 72 / (0.5 * self.font))
        axis.set_title("\n".join(textwrap.wrap(text, characters)), loc="left")

    def legend(self, handles):
        longest = max(len(handle.get_label()) for handle in handles)
        columns = max(1, min(len(handles), int(self.width * 72 / ((longest * 0.5 + 5) * (self.font - 1)))))
        rows = math.ceil(len(handles) / columns)
        height = self.figure.get_figheight()
        self.figure.set_figheight(height + (rows * 1.45 + 0.6) * (self.font - 1) / 72)
        self.figure.legend(handles=handles, loc="outside lower center", ncols=math.ceil(len(handles) / rows),
                           handlelength=2.6, columnspacing=1.2, borderaxespad=0.2)

    def finish(self):
        """Lays it out once for all formats."""
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")

    def labels(self, x, y):
        """Axis labels at the grid's border only; `y` of each panel, or one for all."""
        names = [y] * len(self.axes) if isinstance(y, str) else y
        for i, axis in enumerate(self.axes):
            if i in self.lowest:
                axis.set_xlabel(x)
            if i in self.left or names[i] != names[i - 1]:
                axis.set_ylabel(names[i])


def plain(value, _=None):
    """A tick or a cell: as few digits as tell it."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.6g}".replace("-", "\u2212")


def cell(value):
    if abs(value) >= 1000 or 0 < abs(value) < 0.0005:
        return plain(value)
    return (f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if
            abs(value) >= 0.1 or value == 0 else f"{value:.3f}").replace("-", "\u2212")


def log_axis(axis, low, high):
    """Decades, or where there is less than one and a half of them a few round numbers; `low` and `high` are shown."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.axes.set(**{f"{axis.axis_name}lim": (low / 1.25, high * 1.25)})
    decades = math.log10(high / low)
    if decades < 1.5:
        ticks = [t for t in round_numbers(low / 1.25, high * 1.25)]
        axis.set_major_locator(FixedLocator(ticks))
    else:
        axis.set_major_locator(LogLocator(numticks=6))
    axis.set_major_formatter(FuncFormatter(plain))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())


def round_numbers(low, high):
    for steps in ([1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1, 3]):
        ticks = [m * 10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for m in steps]
        ticks = [t for t in ticks if low <= t <= high]
        if len(ticks) <= 5:
            break
    return ticks or [low]


def lengths_axis(axis, lengths):
    """Context lengths on a log axis, each with its number."""
    axis.set_xscale("log", base=2)
    axis.set_xlim(min(lengths) / 1.2, max(lengths) * 1.2)
    axis.xaxis.set_major_locator(FixedLocator(lengths[:: math.ceil(len(lengths) / 4)]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0f}"))
    axis.xaxis.set_minor_locator(NullLocator())


def linear_axis(axis, ticks=5):
    axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(plain))
