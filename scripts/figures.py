#!/usr/bin/env python3
"""Draws the figures of a paper from an analysis (`kvsweep export DIR --format analysis`), and from nothing else.

    figures.py ANALYSIS.json --set paper --out DIR [--venue neurips|acl|ieee|slides] [--format pdf,png]

Writes each figure in every format, index.json (what was drawn, what was not and why), figures.md and captions.tex.
Needs the matplotlib of .venv (scripts/bootstrap.sh). Exit status: 0; 1 when nothing could be drawn; 2 bad input.
"""
import argparse
import json
import os
import pathlib
import sys
from concurrent.futures import ProcessPoolExecutor

FORM = 1  # of the analysis
FORMATS = ["pdf", "png", "svg"]
DPI = 200
TEX = str.maketrans({c: "\\" + c for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}",
                                                        "^": r"\textasciicircum{}", "\u00b1": r"$\pm$"})


class BadInput(Exception):
    pass


def read_analysis(path):
    try:
        analysis = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read as JSON: {error}") from None
    form = analysis.get("kvsweep_analysis") if isinstance(analysis, dict) else None
    if form != FORM:
        raise BadInput(f"{path}: kvsweep_analysis is {form}; this script draws analyses of form {FORM}, as "
                       "`kvsweep export DIR --format analysis` writes them")
    return analysis


def draw_part(analysis, venue, part):
    """Drawings and Missings of one scope and one kind of figure."""
    scope, kind = part
    style.configure(venue)
    return draw.PAPER[kind](draw.scopes(analysis, venue)[scope])


def parts_of(analysis, venue):
    return [(s, f) for s in range(len(draw.scopes(analysis, venue))) for f in range(len(draw.PAPER))]


def save_part(analysis, venue, part, out, formats):
    """Entries of the index."""
    entries = []
    for made in draw_part(analysis, venue, part):
        if isinstance(made, draw.Missing):
            entries.append({"name": made.name, "not_drawn": made.why})
            continue
        # Without its date: the same analysis makes the same bytes.
        dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
        for form in formats:
            made.figure.savefig(out / f"{made.name}.{form}", dpi=DPI, metadata=dates[form])
        entries.append({"name": made.name, "files": [f"{made.name}.{form}" for form in formats],
                        "caption": made.caption, "groups": [g["title"] for g in made.groups]})
    return entries


def markdown(entries, formats):
    lines = ["# Figures", ""]
    for entry in entries:
        if "files" in entry:
            image = next((f for f in entry["files"] if not f.endswith(".pdf")), None)
            lines += [f"## {entry['name']}", ""] + ([f"![{entry['name']}]({image})", ""] if image else [])
            lines += [" ".join(f"[{form}]({entry['name']}.{form})" for form in formats) + ". " + entry["caption"], ""]
    missing = [entry for entry in entries if "not_drawn" in entry]
    if missing:
        lines += ["## Not drawn", ""] + [f"* {entry['name']}: {entry['not_drawn']}" for entry in missing] + [""]
    return "\n".join(lines)


def latex(entries):
    """One macro-free figure environment an entry, to be copied or read with \\input."""
    lines = []
    for entry in entries:
        if "files" in entry:
            caption = entry["caption"].translate(TEX).replace("\u2026", r"\ldots ").replace("\u2212", "$-$")
            lines += [r"\begin{figure}", r"  \centering", rf"  \includegraphics{{{entry['name']}}}",
                      rf"  \caption{{{caption}}}", rf"  \label{{fig:{entry['name']}}}", r"\end{figure}", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="Draws the figures of a paper from an analysis.")
    parser.add_argument("analysis", help="what `kvsweep export DIR --format analysis` writes")
    parser.add_argument("--set", choices=["paper"], default="paper")
    parser.add_argument("--out", required=True, help="folder for the figures")
    parser.add_argument("--venue", choices=list(style.VENUES), default="neurips")
    parser.add_argument("--format", default="pdf,png", help="of " + ", ".join(FORMATS) + ", with commas")
    arguments = parser.parse_args()
    formats = arguments.format.split(",")
    if unknown := [form for form in formats if form not in FORMATS]:
        parser.error(f"--format {unknown[0]}: not one of {', '.join(FORMATS)}")
    analysis = read_analysis(arguments.analysis)
    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    parts = parts_of(analysis, arguments.venue)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(save_part, *zip(*[(analysis, arguments.venue, part, out, formats) for part in parts]))
        entries = [entry for part in made for entry in part]
    index = {"analysis": arguments.analysis, "venue": arguments.venue, "set": arguments.set, "entries": entries}
    (out / "index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    (out / "figures.md").write_text(markdown(entries, formats), encoding="utf-8")
    (out / "captions.tex").write_text(latex(entries), encoding="utf-8")
    for entry in entries:
        if "not_drawn" in entry:
            print(f"not drawn: {entry['name']}: {entry['not_drawn']}", file=sys.stderr)
    drawn = sum("files" in entry for entry in entries)
    print(f"{out}: {drawn} figures in {', '.join(formats)}")
    return 0 if drawn else 1


if __name__ == "__main__":
    try:
        from figure_kit import draw, style
    except ImportError as problem:
        print(f"figures.py: {problem}; run scripts/bootstrap.sh, then .venv/bin/python scripts/figures.py",
              file=sys.stderr)
        sys.exit(2)
    try:
        sys.exit(main())
    except BadInput as problem:
        print(f"figures.py: {problem}", file=sys.stderr)
        sys.exit(2)
