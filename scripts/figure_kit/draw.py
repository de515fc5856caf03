"""The figures. Each function of PAPER yields what it draws as a Drawing and what the records cannot support as a
Missing; numbers come from the analysis as they are, nothing is estimated here."""
import dataclasses
import math
import re

from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib import colormaps

from . import records, style
from .style import GREY, Page, cell, plain

PANELS = 6  # a page
BARS = 32


@dataclasses.dataclass
class Drawing:
    name: str  # of its file
    figure: Figure
    caption: str
    groups: list  # of the analysis that it shows


@dataclasses.dataclass
class Missing:
    name: str
    why: str


class Scope:
    """One model in one view: nothing is drawn across two."""

    def __init__(self, analysis, venue, model, view, alone, names):
        self.venue = venue
        self.names = names
        self.confidence = analysis["confidence"]
        self.groups = [g for g in analysis["groups"] if (g["model"], g["view"]) == (model, view)]
        titles = records.group_names(analysis["groups"])
        self.titles = {id(g): title for g, title in zip(analysis["groups"], titles)}
        pools = [p for p in analysis["pools"] if (p["model"], p["view"]) == (model, view)]
        of_all = {tuple(p["groups"]) for p in pools if p["kind"] == ""}
        self.pools = [(p, [analysis["groups"][i] for i in p["groups"]]) for p in pools
                      if p["kind"] == "" or tuple(p["groups"]) not in of_all]
        self.prefix = "" if alone else file_name(f"{model}_{view}_")

    def title(self, group):
        return self.titles[id(group)]

    def page(self, count, **options):
        return Page(self.venue, count, **options)

    def drawing(self, name, page, caption, groups):
        page.finish()
        return Drawing(self.prefix + file_name(name), page.figure, caption + " " + self.facts(groups), groups)

    def missing(self, name, why):
        return Missing(self.prefix + file_name(name), why)

    def facts(self, groups):
        items = sorted({g["items"] for g in groups})
        n = f"{items[0]}" if len(items) == 1 else f"{items[0]} to {items[-1]}"
        commits = sorted({g["env"]["commit"][:10] + ("+" if g["env"]["dirty"] else "") for g in groups})
        first = groups[0]
        return (f"Model {first['model']}, view {first['view']}, n = {n} items a task and length, "
                f"{self.confidence * 100:g} % intervals; commit {', '.join(commits)}.")

    def series(self, scheme):
        return style.series(self.names.index[scheme])


def scopes(analysis, venue):
    names = records.Names(analysis)
    found = list(dict.fromkeys((g["model"], g["view"]) for g in analysis["groups"]))
    return [Scope(analysis, venue, model, view, len(found) == 1, names) for model, view in found]


def file_name(text):
    return re.sub(r"[^A-Za-z0-9.]+", "_", text).strip("_" if not text.endswith("_") else "")


def pages(entries, size=PANELS):
    """(suffix of the name, part of the entries): "" where one page holds all."""
    if len(entries) <= size:
        return [("", entries)] if entries else []
    return [(f"_{1 + i // size}", entries[i:i + size]) for i in range(0, len(entries), size)]


def gaps(rows, names):
    """What is not there, and why."""
    texts = list(dict.fromkeys(f"{names(r['configuration'])} ({r['gap']})" for r in rows
                               if r["gap"] and r["gap"] != "reference"))
    shown = "; ".join(texts[:4]) + (f"; and {len(texts) - 4} more" if len(texts) > 4 else "")
    return f" Missing: {shown}." if texts else ""


def detectable(rows):
    """Of rows whose loss is not told from none."""
    found = [r["loss"]["detectable"] for r in rows
             if r["loss"] and not records.significant(r["loss"]) and r["loss"]["detectable"] is not None]
    if not found:
        return ""
    low, high = cell(min(found)), cell(max(found))
    unit = " of the metric's own scale" if any(records.is_ratio(r["loss"]) for r in rows if r["loss"]) else ""
    return (f" Hollow: not told from full precision (Holm, 5 %); these comparisons would have seen a loss of "
            f"{low if low == high else low + ' to ' + high}{unit} (one-sided 5 %, power 80 %).")


# --- loss against a cost ------------------------------------------------------------------------------------------

def loss_panel(scope, axis, rows, cost, numbers=None):
    """Points with intervals; each scheme's front is joined. Returns the schemes that are there. `numbers`:
    {configuration: text} beside its point."""
    shown = [r for r in rows if r.get(cost) is not None and records.difference(r["loss"]) is not None]
    by_scheme = {}
    for row in shown:
        by_scheme.setdefault(row["scheme"], []).append(row)
    for scheme, members in by_scheme.items():
        look = scope.series(scheme)
        points = [(r[cost], records.difference(r["loss"])[0]) for r in members]
        joined = [points[i] for i in records.front(points)]
        axis.plot([x for x, _ in joined], [y for _, y in joined], color=look["color"], linestyle=look["linestyle"],
                  zorder=2)
        for row, (x, y) in zip(members, points):
            _, low, high = records.difference(row["loss"])
            axis.errorbar(x, y, [[max(0, y - low)], [max(0, high - y)]], color=look["color"], marker=look["marker"],
                          markerfacecolor=look["color"] if records.significant(row["loss"]) else "white",
                          elinewidth=0.6, zorder=3, linestyle="none")
    finish_loss(axis, shown)
    return list(by_scheme)


def finish_loss(axis, rows):
    values = [records.difference(r["loss"]) for r in rows]
    if records.is_ratio(rows[0]["loss"]):
        style.log_axis(axis.yaxis, min(v[1] for v in values + [(1, 1, 1)]), max(v[2] for v in values))
        axis.axhline(1, color=GREY, linewidth=0.6, zorder=1)
    else:
        axis.axhline(0, color=GREY, linewidth=0.6, zorder=1)
        style.linear_axis(axis.yaxis)
    axis.margins(x=0.06)


def loss_label(loss, shown_as):
    return f"{shown_as} ratio" if records.is_ratio(loss) else f"loss of {shown_as}"


def scheme_handles(scope, schemes):
    return [style.swatch(scope.series(s), s) for s in scope.names.schemes if s in schemes]


LOSS_CAPTION = ("Lines join the configurations of a scheme that no other of its own beats in both. Bars are paired "
                "intervals on the same items; grey: full precision.")


def has_loss(rows):
    return any(records.difference(r["loss"]) is not None for r in rows)


def no_loss(rows):
    reasons = sorted({r["gap"] or "no comparison" for r in rows if not r.get("is_reference")})
    return "no comparison with full precision: " + ("; ".join(reasons[:3]) or "only full precision was run")


def loss_by_pool(scope):
    entries = [(p, groups) for p, groups in scope.pools if has_loss(p["rows"])]
    for pool, groups in scope.pools:
        if not has_loss(pool["rows"]):
            yield scope.missing(f"loss_bits_{pool['kind'] or 'all'}", no_loss(pool["rows"]))
    for suffix, part in pages(entries):
        page = scope.page(len(part))
        schemes, labels = [], []
        for axis, (pool, groups) in zip(page.axes, part):
            schemes += loss_panel(scope, axis, pool["rows"], "effective_bits")
            page.title(axis, f"{pool_name(pool)} ({len(groups)})")
            labels.append(pool_label(pool, groups))
            style.linear_axis(axis.xaxis)
        page.labels("effective bits per value", labels)
        page.legend(scheme_handles(scope, schemes))
        rows = [r for pool, _ in part for r in pool["rows"]]
        yield scope.drawing("loss_bits" + suffix, page, "Loss against effective bits, mean over tasks and lengths (their "
                            f"number in brackets). {LOSS_CAPTION}{detectable(rows)}{gaps(rows, scope.names)}",
                            unique([g for _, groups in part for g in groups]))


def pool_name(pool):
    return pool["kind"].replace("_", " ") or "all tasks"


def pool_label(pool, groups):
    loss = next(r["loss"] for r in pool["rows"] if records.difference(r["loss"]) is not None)
    metrics = {g["shown_as"] for g in groups}
    return loss_label(loss, metrics.pop() if len(metrics) == 1 else "score")


def unique(items):
    return list({id(item): item for item in items}.values())


def loss_by_group(scope):
    for group in scope.groups:
        if not has_loss(group["rows"]):
            yield scope.missing(f"loss_bits of {scope.title(group)}", no_loss(group["rows"]))
    for suffix, part in pages([g for g in scope.groups if has_loss(g["rows"])]):
        page = scope.page(len(part))
        schemes = []
        for axis, group in zip(page.axes, part):
            schemes += loss_panel(scope, axis, group["rows"], "effective_bits")
            page.title(axis, scope.title(group))
            style.linear_axis(axis.xaxis)
        page.labels("effective bits per value", [loss_label(first_loss(g["rows"]), g["shown_as"]) for g in part])
        page.legend(scheme_handles(scope, schemes))
        rows = [r for g in part for r in g["rows"]]
        yield scope.drawing("loss_bits_by_task" + suffix, page, "Loss against effective bits by task and length. "
                            f"{LOSS_CAPTION}{detectable(rows)}{gaps(rows, scope.names)}", part)


def first_loss(rows):
    return next(r["loss"] for r in rows if records.difference(r["loss"]) is not None)


COSTS = [("effective_bits", "effective bits per value"), ("bytes_per_token", "bytes per token"),
         ("decode_ms_per_token", "ms per decoded token")]


def pareto(scope):
    for pool, groups in scope.pools:
        name = f"pareto_{pool['kind'] or 'all'}"
        rows = [r for r in pool["rows"] if records.difference(r["loss"]) is not None]
        costs = [(cost, label) for cost, label in COSTS if any(r[cost] is not None for r in rows)]
        if not rows:
            yield scope.missing(name, no_loss(pool["rows"]))
            continue
        for cost, label in COSTS:
            if (cost, label) not in costs:
                yield scope.missing(f"{name} against {label}", "nothing was timed")
        page = scope.page(len(costs), height=1.9)
        on_front = {}
        for axis, (cost, _) in zip(page.axes, costs):
            timed = [r for r in rows if r[cost] is not None]
            points = [(r[cost], records.difference(r["loss"])[0]) for r in timed]
            order = records.front(points)
            for i in order:
                on_front.setdefault(timed[i]["configuration"], str(len(on_front) + 1))
            front_panel(scope, axis, timed, points, order, cost, on_front)
        for axis, (_, label) in zip(page.axes, costs):
            axis.set_xlabel(label)
        page.axes[0].set_ylabel(pool_label(pool, groups))
        schemes = {r["scheme"] for r in rows}
        numbered = [style.swatch({**scope.series(scope.names.rows[c]["scheme"]), "linestyle": "none"},
                                 f"{n}  {scope.names(c)}") for c, n in on_front.items()]
        others = [style.swatch({**scope.series(s), "linestyle": "none"}, s, filled=False) for s in scope.names.schemes
                  if s in schemes - {scope.names.rows[c]["scheme"] for c in on_front}]
        page.legend(numbered + others)
        yield scope.drawing(name, page, f"Pareto fronts, {pool_name(pool)}: filled and numbered configurations are those "
                            "that no other beats in loss and cost; the others are hollow. Bars are paired intervals."
                            f"{gaps(pool['rows'], scope.names)}", groups)


def front_panel(scope, axis, rows, points, order, cost, numbers):
    for i, (row, (x, y)) in enumerate(zip(rows, points)):
        look = scope.series(row["scheme"])
        _, low, high = records.difference(row["loss"])
        filled = i in order
        axis.errorbar(x, y, [[max(0, y - low)], [max(0, high - y)]], color=look["color"], marker=look["marker"],
                      markerfacecolor=look["color"] if filled else "white", elinewidth=0.6, linestyle="none",
                      zorder=4 if filled else 3, alpha=1 if filled else 0.55)
    steps = [points[i] for i in order]
    axis.step([x for x, _ in steps], [y for _, y in steps], where="post", color="black", linewidth=0.8, zorder=2)
    finish_loss(axis, rows)
    style.linear_axis(axis.xaxis, 4)
    place_numbers(axis, [(points[i], numbers[rows[i]["configuration"]]) for i in order])


def place_numbers(axis, texts):
    """Beside their points, on the side where no other number stands; a number with no room is left to the legend of
    markers."""
    figure = axis.figure
    figure.draw_without_rendering()
    size = axis.xaxis.label.get_fontsize() - 1
    step = size * figure.dpi / 72
    taken = []
    for point, text in texts:
        x, y = axis.transData.transform(point)
        for dx, dy in [(0.6, 0.6), (-0.7, 0.6), (0.6, -0.7), (-0.7, -0.7), (0, 1.2), (0, -1.3), (1.4, 0), (-1.5, 0),
                       (1.4, 1.4), (-1.4, 1.4), (0, 2.2), (0, -2.3), (2.4, 0.5), (2.4, 1.6), (3.4, 0.8)]:
            place = (x + dx * step, y + dy * step)
            box = axis.bbox
            inside = box.x0 + step < place[0] < box.x1 - step / 2 and box.y0 + step / 2 < place[1] < box.y1
            if inside and all(abs(place[0] - a) > 1.25 * step or abs(place[1] - b) > 1.1 * step for a, b in taken):
                taken.append(place)
                axis.annotate(text, point, (dx * size, dy * size), textcoords="offset points", fontsize=size,
                              ha="center", va="center", zorder=6)
                break


# --- maps ---------------------------------------------------------------------------------------------------------

def heat(axis, columns, lines, values, norm, texts=None, font=None):
    """Cells of values[(column, line)], line 0 at the bottom; None is hatched and says "n/a"."""
    colours = colormaps[style.MAP]
    for i, column in enumerate(columns):
        for j, line in enumerate(lines):
            value = values.get((column, line))
            if value is None:
                axis.add_patch(Rectangle((i - 0.5, j - 0.5), 1, 1, facecolor="white", edgecolor=GREY, hatch="////",
                                         linewidth=0.4))
            else:
                colour = colours(norm(value))
                axis.add_patch(Rectangle((i - 0.5, j - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.5))
            if texts is None:
                continue
            text = texts.get((column, line))
            if value is None:
                axis.text(i, j, "n/a", ha="center", va="center", fontsize=font - 1,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
                continue
            ink = "black" if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 0.5 else "white"
            main, below = text
            axis.text(i, j + 0.05, main, ha="center", va="bottom", fontsize=font - 0.5, color=ink)
            axis.text(i, j - 0.05, below, ha="center", va="top", fontsize=0.72 * font, color=ink)
    axis.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(lines) - 0.5))
    axis.set_xticks(range(len(columns)), [records.number(c) for c in columns])
    axis.set_yticks(range(len(lines)), [records.number(one) for one in lines])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def colour_bar(page, norm, label):
    bar = page.figure.colorbar(ScalarMappable(norm, style.MAP), ax=page.axes, shrink=0.9, pad=0.02, aspect=25,
                               label=label)
    bar.outline.set_visible(False)
    bar.minorticks_off()
    if isinstance(norm, LogNorm):
        bar.ax.yaxis.set_major_formatter(plain)
        if math.log10(norm.vmax / norm.vmin) < 1.5:
            bar.set_ticks(style.round_numbers(norm.vmin, norm.vmax))
    else:
        style.linear_axis(bar.ax.yaxis)


def loss_cell(row):
    found = records.difference(row["loss"])
    return None if found is None or records.is_ratio(row["loss"]) else found


def ratio_cell(row):
    return records.difference(row["loss"]) if row["loss"] and records.is_ratio(row["loss"]) else None


def kl_cell(row):
    kl = row["kl"]
    if kl is None or kl["mean"] is None or not kl["mean"] > 0:
        return None
    return kl["mean"], kl["standard_error"], None


MAPS = [("loss", loss_cell, "loss", "loss against full precision; below: its interval"),
        ("ratio", ratio_cell, "ratio", "ratio to full precision; below: its interval"),
        ("kl", kl_cell, "KL (nats)", "KL divergence from full precision in nats; below: its standard error")]


def bit_maps(scope):
    families = {}
    for group in scope.groups:
        for key, rows in records.grid_families(group["rows"]).items():
            families.setdefault(key, []).append((group, rows))
    if not families:
        yield scope.missing("kv", "no scheme was run at two K bits and two V bits or more")
    count = {}
    for (scheme, other), members in families.items():
        count[scheme] = count.get(scheme, 0) + 1
        name = f"{scheme}" if count[scheme] == 1 else f"{scheme}_{count[scheme]}"
        doubled = next((f"{g['task']}: {records.bits(r)}" for g, rows in members for r in rows
                        if sum(records.bits(r) == records.bits(o) for o in rows) > 1), None)
        if doubled:
            yield scope.missing(f"kv_{name}", f"several configurations have the same K and V bits ({doubled})")
            continue
        for kind, value_of, label, words in MAPS:
            measured = [(g, rows) for g, rows in members if any(value_of(r) for r in rows)]
            if not measured:
                if kind != "ratio" and not any(ratio_cell(r) for _, rows in members for r in rows):
                    yield scope.missing(f"kv_{kind}_{name}", no_loss([r for _, rows in members for r in rows]))
                continue
            yield from map_pages(scope, f"kv_{kind}_{name}", scheme, measured, value_of, label, words)


def map_pages(scope, name, scheme, members, value_of, label, words):
    everything = [value_of(r)[0] for _, rows in members for r in rows if value_of(r)]
    if label == "loss":
        norm = Normalize(min(0, min(everything)), max(everything) if max(everything) > 0 else 1)
    else:
        norm = LogNorm(min(everything), max(max(everything), 1.01 * min(everything)))
    digits = 2 if max(map(abs, everything)) >= 0.1 else 3
    v_bits = sorted({r["v_bits"] for _, rows in members for r in rows})
    k_bits = sorted({r["k_bits"] for _, rows in members for r in rows})
    columns = 3 if len(v_bits) <= 3 else 2 if len(v_bits) <= 5 else 1
    for suffix, part in pages(members, size=2 * columns):
        page = scope.page(len(part), columns=columns, height=0.62 + 0.36 * len(k_bits))
        for axis, (group, rows) in zip(page.axes, part):
            found = {(r["v_bits"], r["k_bits"]): value_of(r) for r in rows}
            values = {key: v[0] for key, v in found.items() if v}
            texts = {key: cell_texts(v, digits) for key, v in found.items() if v}
            heat(axis, v_bits, k_bits, values, norm, texts, page.font)
            page.title(axis, scope.title(group), share=0.85)
        page.labels("V bits", "K bits")
        colour_bar(page, norm, label)
        rows = [r for _, members_of in part for r in members_of]
        yield scope.drawing(name + suffix, page, f"{scheme}: {words}, by nominal bits of keys and values."
                            f"{gaps(rows, scope.names)}", [g for g, _ in part])


def cell_texts(value, digits):
    middle, low, high = value
    if high is None:  # a standard error, of what may be small
        return cell(middle), f"\u00b1{cell(low)}"
    texts = [cell(v) if abs(v) >= 10 else f"{v:.{digits}f}".replace("-", "\u2212") for v in value]
    return texts[0], f"{texts[1]}\u2026{texts[2]}"


def depth_maps(scope):
    families = [f for f in records.families(scope.groups)
                if any("depth" in r["by_tag"] for g in f for r in g["rows"])]
    if not families:
        yield scope.missing("depth", "no task with a tag `depth` was run at two lengths or more")
    for family in families:
        lengths = [g["tokens"] for g in family]
        by_row = {}  # configuration -> {(tokens, depth): (mean, n)}
        note = ""
        for group in family:
            kept, said = whole(group["rows"])
            note = note or said
            for row in kept:
                for one in row["by_tag"].get("depth", []):
                    by_row.setdefault(row["configuration"], {})[group["tokens"], float(one["value"])] = \
                        (one["mean"], one["n"])
        depths = sorted({depth for cells in by_row.values() for _, depth in cells})
        counts = sorted({n for cells in by_row.values() for _, n in cells.values()})
        first = family[0]
        means = [m for cells in by_row.values() for m, _ in cells.values() if m is not None]
        norm = Normalize(0, max(1, max(means)))
        for suffix, part in pages(list(by_row.items()), size=12):
            page = scope.page(len(part), columns=4, height=1.5)
            for axis, (configuration, cells) in zip(page.axes, part):
                heat(axis, lengths, depths, {key: mean for key, (mean, _) in cells.items()}, norm)
                axis.invert_yaxis()
                axis.set_yticks(*every(depths, 6))
                axis.set_xticks(*every(lengths, 4))
                page.title(axis, scope.names(configuration), share=0.8)
            page.labels("tokens", "depth (%)")
            colour_bar(page, norm, first["shown_as"])
            n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
            rows = [r for g in family for r in g["rows"]]
            yield scope.drawing(f"depth_{first['task']}{suffix}", page,
                                f"{first['task']}: mean {first['shown_as']} by depth of the needle and length of the prompt, "
                                f"{n} items a cell; hatched: not measured.{note}{gaps(rows, scope.names)}", family)


def every(values, most):
    step = math.ceil(len(values) / most)
    shown = list(range(0, len(values), step))
    return shown, [records.number(values[i]) for i in shown]


# --- lines by scheme: marker and colour say the K bits, the line the V bits -----------------------------------------

class BitSeries:
    def __init__(self, rows):
        self.k_bits = sorted({round(r["k_bits"], 2) for r in rows})
        self.v_bits = sorted({round(r["v_bits"], 2) for r in rows})

    def __call__(self, row):
        k, v = self.k_bits.index(round(row["k_bits"], 2)), self.v_bits.index(round(row["v_bits"], 2))
        return {**style.series(k), "linestyle": style.LINES[v % len(style.LINES)]}

    def handles(self):
        keys = [style.swatch({**style.series(i), "linestyle": "none"}, f"K {records.number(k)}")
                for i, k in enumerate(self.k_bits)]
        values = [style.swatch({"color": "black", "marker": "", "linestyle": style.LINES[i % len(style.LINES)]},
                               f"V {records.number(v)}") for i, v in enumerate(self.v_bits)]
        return keys + values


ONE_LAYER = " Configurations that differ in one layer are in the figures of layers."


def whole(rows):
    """(rows without those that differ in one layer, what the caption says of it)."""
    kept = [r for r in rows if not records.layer_change(r["scheme_params"])]
    return kept, ONE_LAYER if len(kept) < len(rows) else ""


def scheme_panels(scope, rows):
    """{panel title: {(K bits, V bits): configuration}}: those that differ in more than bits have panels apart."""
    panels = {}
    for row in rows:
        if row["is_reference"]:
            continue
        key = (row["scheme"], tuple((k, v) for k, v in row["scheme_params"].items() if k not in records.BITS))
        bits = records.bits(row)
        if panels.get(key, {}).get(bits, row["configuration"]) != row["configuration"]:
            key += (row["configuration"],)
        panels.setdefault(key, {})[bits] = row["configuration"]
    titles = {}
    for key, configurations in panels.items():
        alike = [dict(k[1]) for k in panels if k[0] == key[0]]
        params = dict(key[1])
        differing = [f"{name}={params.get(name, 'none')}" for name in records.different_params(alike)]
        title = scope.names(key[2]) if len(key) > 2 else " ".join([key[0]] + differing)
        titles[title] = set(configurations.values())
    return titles


def kl_by_position(scope):
    for group in scope.groups:
        name = f"kl_position_{scope.title(group)}"
        kept, note = whole(group["rows"])
        rows = [r for r in kept if not r["is_reference"] and r["kl_by_position"]
                and any(p["kl"] and p["kl"] > 0 for p in r["kl_by_position"])]
        if not rows:
            yield scope.missing(name, "the samples keep no KL by position, or it is 0 everywhere")
            continue
        if max(len(r["kl_by_position"]) for r in rows) < 2:
            yield scope.missing(name, "one scored position a sample")
            continue
        looks = BitSeries(rows)
        panels = scheme_panels(scope, rows)
        values = [p["kl"] for r in rows for p in r["kl_by_position"] if p["kl"] and p["kl"] > 0]
        for suffix, part in pages(list(panels.items())):
            page = scope.page(len(part), share_y=True)
            for axis, (title, configurations) in zip(page.axes, part):
                for row in (r for r in rows if r["configuration"] in configurations):
                    points = [(p["position"], p["kl"]) for p in row["kl_by_position"] if p["kl"] and p["kl"] > 0]
                    axis.plot([x for x, _ in points], [y for _, y in points], **looks(row),
                              markevery=max(1, len(points) // 6))
                style.log_axis(axis.yaxis, min(values), max(values))
                style.linear_axis(axis.xaxis, 4)
                page.title(axis, title)
            page.labels("scored position", "KL (nats)")
            page.legend(looks.handles())
            counts = [p["n"] for r in rows for p in r["kl_by_position"] if p["n"]]
            yield scope.drawing(name + suffix, page,
                                f"{scope.title(group)}: mean KL divergence from full precision by position, in buckets of "
                                f"{min(counts)} to {max(counts)} positions of all samples; positions after a text has left "
                                "full precision's are not compared; no intervals; zeros are not shown."
                                f"{note}{gaps(group['rows'], scope.names)}", [group])


def by_length(scope, name, value_of, label, words, log):
    """Lines over context length, one panel a scheme."""
    families = records.families(scope.groups)
    if not families:
        yield scope.missing(name, "no task was run at two lengths or more")
    for family in families:
        title = f"{name}_{family[0]['task']}"
        lines = {}  # configuration -> {tokens: value}
        rows = {}
        note = ""
        for group in family:
            kept, said = whole(group["rows"])
            note = note or said
            for row in kept:
                value = value_of(row, group)
                if value is not None:
                    lines.setdefault(row["configuration"], {})[group["tokens"]] = value
                    rows.setdefault(row["configuration"], row)
        lengths = [g["tokens"] for g in family]
        values = [v for points in lines.values() if len(points) > 1 for v in points.values()]
        # A length that is missing breaks the line.
        lines = {c: (lengths, [points.get(at, math.nan) for at in lengths]) for c, points in lines.items()
                 if len(points) > 1}
        shown = [rows[c] for c in lines if not rows[c]["is_reference"]]
        if not shown:
            yield scope.missing(title, "no configuration has it at two lengths or more")
            continue
        looks = BitSeries(shown)
        for suffix, part in pages(list(scheme_panels(scope, shown).items())):
            page = scope.page(len(part), share_y=True)
            full = [c for c in lines if rows[c]["is_reference"]]
            for axis, (panel, configurations) in zip(page.axes, part):
                for c in full:
                    axis.plot(*lines[c], color=GREY, linewidth=2.2, alpha=0.6, zorder=1)
                for c in configurations:
                    axis.plot(*lines[c], **looks(rows[c]))
                style.lengths_axis(axis, lengths)
                if log:
                    style.log_axis(axis.yaxis, min(values), max(values))
                else:
                    style.linear_axis(axis.yaxis)
                page.title(axis, panel)
            page.labels("context (tokens)", label)
            handles = [style.swatch({"color": GREY, "marker": "", "linestyle": "-"}, "full precision")] if full else []
            page.legend(handles + looks.handles())
            absent = sorted({scope.names(r["configuration"]) for g in family for r in whole(g["rows"])[0]
                             if r["configuration"] not in lines})
            gone = f" Not at two lengths: {', '.join(absent)}." if absent else ""
            missing = gaps([r for g in family for r in g["rows"]], scope.names)
            yield scope.drawing(title + suffix, page, f"{family[0]['task']}: {words}{note}{gone}{missing}", family)


def itl(scope):
    yield from by_length(scope, "itl", lambda row, _: row["decode_ms_per_token"], "ms per decoded token",
                         "time of a decoded token alone, one sequence, on the machine of the run; timed on one sample a "
                         "point, so there is no interval.", log=False)


def sequences(row, group):
    return 2**30 / (row["bytes_per_token"] * group["tokens"]) if row["bytes_per_token"] else None


def concurrency(scope):
    yield from by_length(scope, "concurrency", sequences, "sequences per GiB",
                         "sequences of this context whose caches fit into 1 GiB, from counted bytes per token.", log=True)


# --- layers and failures --------------------------------------------------------------------------------------------

def layers(scope):
    entries = []
    for group in scope.groups:
        series = {}
        for row in group["rows"]:
            change = records.layer_change(row["scheme_params"])
            if change:
                key, default, layer, value, other = change
                series.setdefault((row["scheme"], key, default, value, other), []).append((layer, row))
        series = {k: sorted(v, key=lambda one: one[0]) for k, v in series.items() if len({at for at, _ in v}) > 1}
        if series:
            entries.append((group, series))
    if not entries:
        yield scope.missing("layers", "no two points differ from a configuration in one layer each")
        return
    looks = {key: i for i, key in enumerate(dict.fromkeys(k for _, series in entries for k in series))}
    for kind, value_of in [("loss", lambda r: records.difference(r["loss"])), ("kl", kl_interval)]:
        drawn = [(g, s) for g, s in entries if any(value_of(r) for rows in s.values() for _, r in rows)]
        if not drawn:
            yield scope.missing(f"layers_{kind}", "no such point was measured")
        for suffix, part in pages(drawn):
            page = scope.page(len(part), columns=2, height=1.8)
            labels = []
            for axis, (group, series) in zip(page.axes, part):
                labels.append(layer_panel(scope, page, axis, group, series, looks, kind, value_of))
            page.labels("layer", labels)
            page.legend([style.swatch(style.series(i), f"{k[0]} {k[1]}: {k[3]} instead of {k[2]}")
                         for k, i in looks.items()])
            rows = [r for _, series in part for members in series.values() for _, r in members]
            what = "loss, with paired intervals" if kind == "loss" else "mean KL, with one standard error"
            yield scope.drawing(f"layers_{kind}{suffix}", page,
                                f"Sensitivity of layers: {what}, of configurations that differ in one layer; thin line: the "
                                f"same configuration without the difference.{gaps(rows, scope.names)}",
                                [g for g, _ in part])


def kl_interval(row):
    found = kl_cell(row)
    return (found[0], max(found[0] - found[1], found[0] / 10), found[0] + found[1]) if found else None


def layer_panel(scope, page, axis, group, series, looks, kind, value_of):
    shown = []
    for key, members in series.items():
        look = style.series(looks[key])
        scheme, name, default, _, other = key
        points = [(layer, value_of(r)) for layer, r in members if value_of(r)]
        shown += [v for _, v in points]
        axis.errorbar([x for x, _ in points], [v[0] for _, v in points],
                      [[max(0, v[0] - v[1]) for _, v in points], [max(0, v[2] - v[0]) for _, v in points]], **look,
                      elinewidth=0.6)
        base = next((r for r in group["rows"] if r["scheme"] == scheme and r["scheme_params"].get(name) == default
                     and tuple((k, v) for k, v in r["scheme_params"].items() if k != name) == other), None)
        if base and value_of(base):
            shown.append(value_of(base))
            axis.axhline(value_of(base)[0], color=look["color"], linestyle=look["linestyle"], linewidth=0.5)
    page.title(axis, scope.title(group))
    style.linear_axis(axis.xaxis)
    losses = [r["loss"] for members in series.values() for _, r in members if r["loss"]]
    ratio = kind == "loss" and bool(losses) and records.is_ratio(losses[0])
    if ratio or kind == "kl":
        style.log_axis(axis.yaxis, min(v[1] for v in shown), max(v[2] for v in shown))
    else:
        style.linear_axis(axis.yaxis)
    return "KL (nats)" if kind == "kl" else loss_label(losses[0], group["shown_as"])


def failures(scope):
    for pool, groups in scope.pools:
        name = f"failures_{pool['kind'] or 'all'}"
        rows = [r for r in pool["rows"] if r["failures"]["items"] > 0]
        if not rows:
            yield scope.missing(name, "no item became worse, or none was compared")
            continue
        totals = {}
        for row in rows:
            for mode, items in row["failures"]["modes"]:
                totals[mode] = totals.get(mode, 0) + items
        modes = sorted(totals, key=lambda mode: -totals[mode])
        items = sum(g["items"] for g in groups)
        for suffix, part in pages(rows, size=BARS):
            page = scope.page(1, height=0.45 + 0.16 * len(part))
            axis = page.axes[0]
            for j, row in enumerate(part):
                left = 0
                counts = dict(row["failures"]["modes"])
                for i, mode in enumerate(modes):
                    axis.barh(j, counts.get(mode, 0), left=left, height=0.72, **bar_style(i))
                    left += counts.get(mode, 0)
            axis.set_yticks(range(len(part)), [scope.names(r["configuration"]) for r in part])
            axis.set_ylim(len(part) - 0.4, -0.6)
            axis.margins(x=0.02)
            axis.set_xlabel(f"items that became worse, of {items}")
            style.linear_axis(axis.xaxis)
            axis.tick_params(axis="y", length=0)
            page.legend([Patch(**bar_style(i), label=mode) for i, mode in enumerate(modes)])
            spared = [scope.names(r["configuration"]) for r in pool["rows"] if r["failures"]["items"] == 0 and not r["gap"]]
            none = f" None became worse with {', '.join(spared)}." if spared else ""
            yield scope.drawing(name + suffix, page, f"How items failed that became worse than with full precision, "
                                f"{pool_name(pool)}; one mode an item.{none}{gaps(pool['rows'], scope.names)}", groups)


def bar_style(index):
    return {"facecolor": style.COLOURS[index % len(style.COLOURS)], "edgecolor": "white" if index % 7 == 6 else "black",
            "hatch": style.HATCHES[index % len(style.HATCHES)], "linewidth": 0.4}


PAPER = [loss_by_pool, loss_by_group, bit_maps, depth_maps, kl_by_position, itl, concurrency, pareto, layers, failures]
