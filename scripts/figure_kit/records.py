"""What figures ask of an analysis: short names, numbers with their intervals, what belongs to one series."""
import collections
import re

BITS = {"k_bits", "v_bits", "k_type", "v_type"}
LAYERS = re.compile(r"^\{default: (.*?), layers: \{(.*)\}\}$")


def number(value):
    return f"{value:g}"


def bits(row):
    return f"K{number(round(row['k_bits'], 2))} V{number(round(row['v_bits'], 2))}"


class Names:
    """Short names of configurations, and which series a scheme is, the same in all figures of an analysis."""

    def __init__(self, analysis):
        rows = {}
        for group in analysis["groups"]:
            for row in group["rows"]:
                rows.setdefault(row["configuration"], row)
        self.rows = rows
        self.schemes = list(dict.fromkeys(r["scheme"] for r in rows.values() if not r["is_reference"]))
        self.index = {scheme: i for i, scheme in enumerate(self.schemes)}
        alike = collections.defaultdict(list)
        for configuration, row in rows.items():
            count = sum(other["scheme"] == row["scheme"] for other in rows.values())
            alike[row["scheme"] if count == 1 else f"{row['scheme']} {bits(row)}"].append(configuration)
        self.short = {}
        for name, configurations in alike.items():
            differing = different_params([rows[c]["scheme_params"] for c in configurations])
            for c in configurations:
                extra = [short_param(key, rows[c]["scheme_params"].get(key, "none")) for key in differing]
                self.short[c] = " ".join([name] + extra)

    def __call__(self, configuration):
        return self.short[configuration]


def different_params(params):
    keys = list(dict.fromkeys(key for one in params for key in one))
    return [key for key in keys if len({one.get(key) for one in params}) > 1]


def short_param(key, text):
    """"k_bits=4"; of one layer that differs "k_bits[7]=2"."""
    layer = one_layer(text)
    return f"{key}[{layer[1]}]={layer[2]}" if layer else f"{key}={text}"


def group_names(groups):
    """"needle, 1024 tokens"; with what else differs where that says the same of two."""
    alike = collections.defaultdict(list)
    for i, group in enumerate(groups):
        alike[f"{group['task']}, {group['tokens']} tokens"].append(i)
    names = [""] * len(groups)
    for name, members in alike.items():
        facts = [dict(groups[i]["task_params"], version=groups[i]["task_version"], seed=groups[i]["seed"],
                      view=groups[i]["view"], model=groups[i]["model"]) for i in members]
        differing = different_params(facts)
        for i, fact in zip(members, facts):
            names[i] = ", ".join([name] + [f"{key}={fact.get(key, 'none')}" for key in differing])
    return names


def families(groups):
    """Groups that differ in nothing but length, in order of length: lists of two or more."""
    alike = collections.defaultdict(list)
    for group in groups:
        params = tuple(sorted((k, v) for k, v in group["task_params"].items() if k != "tokens"))
        alike[group["model"], group["task"], group["task_version"], params, group["view"], group["seed"]].append(group)
    found = [sorted(family, key=lambda g: g["tokens"]) for family in alike.values()]
    return [family for family in found if len({g["tokens"] for g in family}) > 1]


def difference(loss):
    """(value, low, high) of a comparison, a ratio where its metric is shown as one; None: there is none."""
    if loss is None:
        return None
    names = ("ratio", "ratio_low", "ratio_high") if is_ratio(loss) else ("loss", "low", "high")
    values = tuple(loss[name] for name in names)
    return None if values[0] is None else tuple(values[0] if v is None else v for v in values)


def is_ratio(loss):
    return loss["ratio"] is not None


def significant(loss):
    return loss["p_adjusted"] is not None and loss["p_adjusted"] < 0.05


def front(points):
    """Of (cost, loss): the indices that nothing beats in both, by cost. As pareto_front() of the report."""
    def beats(a, b):
        return a[0] <= b[0] and a[1] <= b[1] and a != b

    kept = [i for i, p in enumerate(points) if not any(beats(q, p) for q in points)]
    return sorted(kept, key=lambda i: points[i])


def one_layer(text):
    """A parameter's text "{default: 2, layers: {7: 8}}" as (default, layer, value); None: no map of one layer."""
    match = LAYERS.match(text)
    inner = re.fullmatch(r"(\d+): ([^,]+)", match[2]) if match else None
    return (match[1], int(inner[1]), inner[2]) if inner else None


def layer_change(params):
    """(key, default, layer, value, the other parameters) where exactly one parameter has a map of one layer."""
    changed = [(key, one_layer(text)) for key, text in params.items() if text.startswith("{default:")]
    if len(changed) != 1 or changed[0][1] is None:
        return None
    key, (default, layer, value) = changed[0]
    return key, default, layer, value, tuple((k, v) for k, v in params.items() if k != key)


def grid_families(rows):
    """Rows of one scheme that differ in bits alone: {(scheme, other parameters): {(k bits, v bits): row}}, of those
    with two values of each; a family with two rows in one cell is left to say so."""
    alike = collections.defaultdict(list)
    for row in rows:
        if not row["is_reference"]:
            other = tuple((k, v) for k, v in row["scheme_params"].items() if k not in BITS)
            alike[row["scheme"], other].append(row)
    return {key: members for key, members in alike.items()
            if len({r["k_bits"] for r in members}) > 1 and len({r["v_bits"] for r in members}) > 1}
