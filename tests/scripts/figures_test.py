#!/usr/bin/env python3
# contract: every figure of a set is drawn from an analysis alone, says what it shows, and can be read in grey; what the
# records cannot support is named, never an empty picture.
import copy
import io
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "figures.py"
GOLDEN = ROOT / "tests" / "golden" / "report"


def in_venv():
    """This test again, by the interpreter that has matplotlib."""
    python = ROOT / ".venv" / "bin" / "python"
    if not python.exists() or subprocess.run([python, "-c", "import matplotlib"], capture_output=True).returncode:
        print("skipped: no matplotlib in .venv; scripts/bootstrap.sh installs it")
        return 4
    return subprocess.run([python, __file__, "--here", *sys.argv[1:]]).returncode


# --- an analysis made up of all that figures can show ---------------------------------------------------------------

MODES = ["other answer", "repeats itself", "forgets the beginning"]


def comparison(loss, n, ratio=False):
    high = loss + 0.08 + 0.1 * loss
    low = loss - 0.08
    return {"metric": "m", "n": n, "clusters": n, "unpaired": 0, "not_numbers": 0, "binary": not ratio,
            "reference_mean": 1.0, "own_mean": 1 - loss, "loss": loss, "standard_error": 0.04, "low": low, "high": high,
            "method": "BCa", "lost": int(loss * n), "gained": 0, "p": 0.001 if loss > 0.1 else 0.4,
            "p_adjusted": 0.01 if loss > 0.1 else 1.0, "detectable": 0.12, "ratio": 2.0**(4 * loss) if ratio else None,
            "ratio_low": 2.0**(4 * low) if ratio else None, "ratio_high": 2.0**(4 * high) if ratio else None}


def row(scheme, params, k, v, group, loss=None, gap=""):
    reference = scheme == "full"
    if loss is None:
        loss = 0 if reference else 0.9 / (k - 1) ** 2 + 0.3 / (v - 1) ** 2
    n, tokens = group["items"], group["tokens"]
    scored = not gap or reference
    depths = [{"value": str(d), "mean": max(0, 1 - loss * (0.5 + d / 100)), "n": n // 5} for d in range(0, 101, 25)]
    items = int(loss * n)
    parts = [items - items // 2 - items // 5, items // 2, items // 5]
    configuration = " ".join([scheme] + [f"{key}={value}" for key, value in params.items()])
    return {"id": f"{abs(hash(configuration)):016x}", "configuration": configuration, "scheme": scheme,
            "scheme_params": params, "k_bits": k, "v_bits": v, "is_reference": reference,
            "status": "ok" if scored else "failed", "error": "" if scored else gap,
            "gap": "reference" if reference else gap, "n": n,
            "effective_bits": 16 if reference else (k + v) / 2 + 0.5 if scored else None,
            "bytes_per_token": 46080 * (k + v) / 32 if scored else None,
            "live_bytes": 46080 * tokens if scored else None,
            "decode_ms_per_token": 20 + tokens / 400 * (1 + k / 16) if scored else None, "path": "fused",
            "score": {"mean": 1 - loss, "standard_error": 0.02, "low": 0.9 - loss, "high": 1.0} if scored else None,
            "loss": comparison(loss, n, group["exponential"]) if scored and not reference else None,
            "kl": {"mean": loss / 2, "standard_error": loss / 20, "median": loss / 2, "p99": loss, "max": 2 * loss}
            if scored else None,
            "top1_flips": loss / 3, "divergence_share": loss, "attention": None,
            "failures": {"items": items if scored else 0,
                         "modes": [[m, c] for m, c in zip(MODES, parts) if c] if scored else []},
            "warnings": [], "by_tag": {"depth": depths} if group["task"] == "needle" and scored else {},
            "kl_by_position": [{"position": p, "kl": 0 if reference else loss / (1 + p / 8), "n": n}
                               for p in range(0, 64, 4)] if scored else None}


def synthetic(schemes=("uniform", "kivi", "quanto")):
    groups = []
    for task, kind, metric, exponential, lengths in [
            ("needle", "retrieval", "match", False, [512, 2048, 8192]),
            ("summary_of_reports", "summarization", "rouge", False, [2048]),
            ("perplexity", "language_modeling", "perplexity", True, [1024])]:
        for tokens in lengths:
            group = {"title": f"{task} v1 tokens={tokens} | {tokens} tokens", "model": "toy-1b", "task": task,
                     "task_version": 1, "task_params": {"tokens": str(tokens), "samples": "100"}, "kind": kind,
                     "tokens": tokens, "view": "exact", "seed": 17, "metric": metric, "shown_as": metric,
                     "exponential": exponential, "higher_is_better": not exponential, "items": 100, "rules": {},
                     "noise": None, "env": {"version": "0.1.0", "commit": "0123456789abcdef", "dirty": False,
                                            "host": "h", "cpu": "c", "threads": 2,
                                            "started_at": "2026-11-26T09:48:08Z", "command": "kvsweep run"}}
            rows = [row("full", {}, 16, 16, group)]
            for i, scheme in enumerate(schemes):
                for k in (2, 4, 8):
                    for v in (2, 4, 8):
                        gap = "failed: out of memory" if (scheme, k, v, tokens) == ("kivi", 2, 8, 2048) else ""
                        loss = (0.9 + 0.2 * i) / (k - 1) ** 2.2 + 0.3 / (v - 1) ** 2
                        rows.append(row(scheme, {"k_bits": str(k), "v_bits": str(v), "group": "64"}, k, v, group,
                                        min(loss, 1), gap))
            for layer in range(8) if task == "needle" and tokens == 512 else ():
                text = f"{{default: 4, layers: {{{layer}: 2}}}}"
                rows.append(row("layered", {"k_bits": text, "v_bits": "4"}, 3.75, 4, group, 0.05 + 0.1 / (1 + layer)))
            if task == "needle" and tokens == 512:
                rows.append(row("layered", {"k_bits": "4", "v_bits": "4"}, 4, 4, group, 0.04))
            group["rows"] = rows
            groups.append(group)
    pools = []
    for kind in ["", "retrieval", "summarization", "language_modeling"]:
        members = [i for i, g in enumerate(groups) if g["kind"] == kind or (not kind and not g["exponential"])]
        pools.append({"model": "toy-1b", "view": "exact", "kind": kind, "groups": members,
                      "rows": [pooled(c, [groups[i] for i in members])
                               for c in dict.fromkeys(r["configuration"] for i in members for r in groups[i]["rows"]
                                                      if not r["is_reference"])]})
    return {"kvsweep_analysis": 1, "path": "results/toy", "confidence": 0.95, "resamples": 10000, "allowed": [],
            "groups": groups, "pools": pools}


def pooled(configuration, groups):
    rows = [next((r for r in g["rows"] if r["configuration"] == configuration), None) for g in groups]
    gap = "; ".join(f"{g['title']}: {r['gap'] if r else 'not run'}" for g, r in zip(groups, rows) if not r or r["gap"])
    there = [r for r in rows if r and not r["gap"]]
    first = there[0] if there else next(r for r in rows if r)
    out = {key: first[key] for key in ["configuration", "scheme", "k_bits", "v_bits", "effective_bits",
                                       "bytes_per_token", "decode_ms_per_token", "failures"]}
    return dict(out, gap=gap, loss=None if gap else there[0]["loss"])


def golden_analyses():
    found = sorted(GOLDEN.glob("**/analysis*.json"))
    return {str(path.relative_to(GOLDEN)): json.loads(path.read_text()) for path in found}


# --- what every figure must be ----------------------------------------------------------------------------------------

def texts_of(figure):
    """(text, box) of all that is shown; a tick outside of its axis' limits is an artist that is not drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    hidden = set()
    for axis in figure.axes:
        for side in (axis.xaxis, axis.yaxis):
            drawn = {id(tick) for tick in side._update_ticks()}
            hidden |= {id(label) for tick in side.get_major_ticks() + side.get_minor_ticks() if id(tick) not in drawn
                       for label in (tick.label1, tick.label2)}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden:
            box = text.get_window_extent(renderer)
            if box.width > 0:
                yield text.get_text(), box


def problems_of(figure):
    texts = list(texts_of(figure))
    canvas = figure.bbox
    found = []
    for i, (text, box) in enumerate(texts):
        if box.x0 < canvas.x0 - 1 or box.x1 > canvas.x1 + 1 or box.y0 < canvas.y0 - 1 or box.y1 > canvas.y1 + 1:
            found.append(f"'{text}' leaves the canvas")
        for other, other_box in texts[i + 1:]:
            width = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            height = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            if width > 1 and height > 1:
                found.append(f"'{text}' and '{other}' overlap")
    return found


def pixels(figure):
    import numpy
    from PIL import Image
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return numpy.asarray(Image.open(buffer).convert("RGB"))


def embedded_fonts(pdf):
    """(kinds of fonts, fonts of which no program is embedded) of a PDF as matplotlib writes it."""
    data = pdf.read_bytes()
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", data, re.S):
        try:
            data += zlib.decompress(stream)
        except zlib.error:
            pass
    kinds = set(re.findall(rb"/Subtype\s*/(Type3|Type1|TrueType|Type0|CIDFontType2)", data))
    return kinds, len(re.findall(rb"/Type\s*/FontDescriptor", data)) - len(re.findall(rb"/FontFile2? ", data))


class TestFigures(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        sys.path.insert(0, str(SCRIPT.parent))
        global figures, draw, records, style
        import figures
        from figure_kit import draw, records, style
        figures.draw, figures.style = draw, style
        cls.everything = {one.name: one for one in cls.made(cls, synthetic()) if isinstance(one, draw.Drawing)}
        cls.stored = {name: cls.drawn(cls(), analysis) for name, analysis in golden_analyses().items()}

    def made(self, analysis, venue="neurips"):
        return [one for part in figures.parts_of(analysis, venue) for one in figures.draw_part(analysis, venue, part)]

    def drawn(self, analysis, venue="neurips"):
        return {one.name: one for one in self.made(analysis, venue) if isinstance(one, draw.Drawing)}

    def missing(self, analysis):
        return {one.name: one.why for one in self.made(analysis) if isinstance(one, draw.Missing)}

    def test_texts_of_no_figure_overlap_or_leave_the_canvas_in_any_venue(self):
        sets = {"neurips": self.everything}
        sets.update({venue: self.drawn(synthetic(["uniform"]), venue) for venue in style.VENUES if venue != "neurips"})
        sets.update(self.stored)
        for name, drawn in sets.items():
            self.assertTrue(drawn)
            for figure, one in drawn.items():
                with self.subTest(set=name, figure=figure):
                    self.assertEqual(problems_of(one.figure), [])

    def test_no_figure_is_empty_or_of_one_colour(self):
        for drawn in [self.everything, *self.stored.values()]:
            for name, one in drawn.items():
                with self.subTest(figure=name):
                    image = pixels(one.figure).reshape(-1, 3)
                    ink = (image != 255).any(axis=1)
                    self.assertGreater(ink.mean(), 0.02)
                    self.assertGreater(len({tuple(c) for c in image[ink][::7].tolist()}), 8)

    def test_all_figures_of_the_set_are_drawn_from_an_analysis_that_has_everything(self):
        names = set(self.everything)
        for stem in ["loss_bits", "loss_bits_by_task", "kv_loss_uniform", "kv_ratio_kivi", "kv_kl_quanto", "depth_needle",
                     "kl_position_needle_512_tokens", "itl_needle", "concurrency_needle", "pareto_all",
                     "pareto_language_modeling", "layers_loss", "layers_kl", "failures_all"]:
            self.assertTrue(any(n == stem or re.fullmatch(stem + r"_\d+", n) for n in names), f"{stem} not in {names}")

    def test_all_figures_of_the_set_are_drawn_from_the_stored_analyses(self):
        """Those that the exporter makes of stored records; the C++ tests hold it to them."""
        names = set().union(*self.stored.values())
        for stem in ["loss_bits", "loss_bits_by_task", "kv_loss_.*", "kv_ratio_.*", "kv_kl_.*", "depth_.*",
                     "kl_position_.*", "itl_.*", "concurrency_.*", "pareto_.*", "layers_loss", "layers_kl",
                     "failures_.*"]:
            self.assertTrue(any(re.fullmatch(stem, name) for name in names), f"{stem} not in {names}")

    def test_captions_say_model_view_n_interval_commit_and_what_is_missing(self):
        drawn = self.everything
        for one in drawn.values():
            for fact in ["Model toy-1b", "view exact", "n = 100 items", "95 % intervals", "commit 0123456789"]:
                self.assertIn(fact, one.caption)
        by_task = drawn["loss_bits_by_task"].caption
        self.assertIn("Missing: kivi K2 V8 (failed: out of memory)", by_task)
        self.assertIn("would have seen a loss of 0.12", by_task)

    def test_labels_that_should_be_there_are(self):
        drawn = self.everything

        def texts(name):
            return " | ".join(text for text, _ in texts_of(drawn[name].figure))

        for name, wanted in {
                "loss_bits": ["effective bits per value", "loss of score", "perplexity ratio", "uniform", "kivi"],
                "loss_bits_by_task": ["needle, 2048 tokens", "perplexity, 1024", "loss of rouge"],
                "kv_loss_kivi": ["K bits", "V bits", "n/a", "needle, 8192 tokens"],
                "kv_kl_uniform": ["KL (nats)"],
                "depth_needle_1": ["depth (%)", "tokens", "8192", "match", "uniform K2 V2"],
                "itl_needle": ["ms per decoded token", "context (tokens)", "full precision", "K 2", "V 8"],
                "concurrency_needle": ["sequences per GiB"],
                "pareto_all": ["effective bits per value", "bytes per token", "ms per decoded token"],
                "layers_loss": ["layer", "layered k_bits: 2 instead of 4"],
                "failures_retrieval_1": ["other answer", "repeats itself", "items that became worse, of 300"]}.items():
            for label in wanted:
                self.assertIn(label, texts(name), name)

    def test_series_differ_in_marker_or_line_so_that_grey_tells_them_apart(self):
        looks = [(s["marker"], s["linestyle"]) for s in map(style.series, range(30))]
        self.assertEqual(len(set(looks)), 30)
        bars = [(b["facecolor"], b["hatch"]) for b in map(draw.bar_style, range(8))]
        self.assertEqual(len({hatch for _, hatch in bars}), 8)
        rows = [{"k_bits": k, "v_bits": v} for k in (2, 3, 4, 8) for v in (2, 3, 4, 8)]
        bits = draw.BitSeries(rows)
        self.assertEqual(len({(bits(r)["marker"], bits(r)["linestyle"]) for r in rows}), 16)

    def test_maps_grow_lighter_with_the_value(self):
        from matplotlib import colormaps
        grey = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b, _ in (colormaps[style.MAP](i / 50) for i in range(51))]
        self.assertEqual(grey, sorted(grey))

    def test_numbers_in_a_figure_are_those_of_the_analysis(self):
        analysis = synthetic()
        drawn = self.everything
        group = analysis["groups"][0]
        shown = [text for text, _ in texts_of(drawn["kv_loss_uniform"].figure)]
        for one in group["rows"]:
            if one["scheme"] == "uniform":
                self.assertIn(f"{one['loss']['loss']:.2f}", shown)
        axis = drawn["loss_bits_by_task"].figure.axes[0]
        points = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines if len(line.get_xdata()) == 1}
        wanted = {(r["effective_bits"], r["loss"]["loss"]) for r in group["rows"] if r["loss"]}
        self.assertTrue(wanted <= points, wanted - points)
        bytes_of_full = group["rows"][0]["bytes_per_token"]
        grey = next(line for line in drawn["concurrency_needle"].figure.axes[0].lines if line.get_color() == style.GREY)
        self.assertAlmostEqual(grey.get_ydata()[0], 2**30 / (bytes_of_full * 512))

    def test_a_missing_length_breaks_the_line(self):
        axis = next(a for a in self.everything["itl_needle"].figure.axes if a.get_title(loc="left") == "kivi")
        broken = [line for line in axis.lines if any(y != y for y in line.get_ydata())]
        self.assertEqual(len(broken), 1)  # K2 V8 at 2048 tokens

    def test_what_records_cannot_support_is_named_with_its_reason(self):
        analysis = synthetic()
        for one in analysis["groups"] + analysis["pools"]:
            one["rows"] = [r for r in one["rows"] if r["scheme"] != "layered"]
        for group in analysis["groups"]:
            group["tokens"] = 512
            for one in group["rows"]:
                one.update(decode_ms_per_token=None, kl_by_position=None)
        for pool in analysis["pools"]:
            for one in pool["rows"]:
                one.update(decode_ms_per_token=None, failures={"items": 0, "modes": []})
        missing = self.missing(analysis)
        self.assertIn("no two points differ from a configuration in one layer", missing["layers"])
        self.assertIn("two lengths", missing["itl"])
        self.assertIn("two lengths", missing["depth"])
        self.assertIn("no item became worse", missing["failures_all"])
        self.assertIn("nothing was timed", missing["pareto_all_against_ms_per_decoded_token"])
        self.assertTrue(any(name.startswith("kl_position_needle") for name in missing))

    def test_two_configurations_in_one_cell_are_no_map(self):
        analysis = synthetic(["uniform"])
        for group in analysis["groups"]:
            twin = copy.deepcopy(next(r for r in group["rows"] if r["scheme"] == "uniform"))
            twin["configuration"] += " again"
            group["rows"].append(twin)
        self.assertIn("several configurations have the same K and V bits", self.missing(analysis)["kv_uniform"])

    def test_an_analysis_in_which_everything_failed_draws_nothing_and_says_why(self):
        analysis = synthetic()
        for rows in [g["rows"] for g in analysis["groups"]] + [p["rows"] for p in analysis["pools"]]:
            for one in rows:
                one.update(gap="failed: out of memory", loss=None, effective_bits=None, bytes_per_token=None,
                           decode_ms_per_token=None, kl=None, kl_by_position=None, by_tag={}, score=None,
                           failures={"items": 0, "modes": []}, is_reference=one.get("is_reference", False))
        self.assertEqual(list(self.drawn(analysis)), [])
        self.assertIn("out of memory", self.missing(analysis)["loss_bits_all"])

    def test_views_are_never_in_one_figure(self):
        analysis = synthetic(["uniform"])
        other = copy.deepcopy(analysis)
        for one in other["groups"] + other["pools"]:
            one["view"] = "chunked:128"
        for pool in other["pools"]:
            pool["groups"] = [i + len(analysis["groups"]) for i in pool["groups"]]
        analysis["groups"] += other["groups"]
        analysis["pools"] += other["pools"]
        for one in self.drawn(analysis).values():
            self.assertEqual(len({g["view"] for g in one.groups}), 1)

    def test_names_of_records_are_not_markup(self):
        analysis = json.loads(json.dumps(synthetic(["uniform"])).replace("needle", "a $x_1$ & <b>"))
        drawn = self.drawn(analysis)
        self.assertIn("a $x_1$ & <b>, 512 tokens", [t for t, _ in texts_of(drawn["loss_bits_by_task"].figure)])
        entry = {"name": "x", "files": ["x.pdf"], "caption": "50 % of a_b & {c} ±0.1"}
        self.assertIn(r"\caption{50 \% of a\_b \& \{c\} $\pm$0.1}", figures.latex([entry]))

    def test_fronts_and_layers(self):
        self.assertEqual(records.front([(1, 5), (2, 5), (2, 3), (3, 4), (4, 1), (1, 5), (5, 1)]), [0, 5, 2, 4])
        self.assertEqual(records.one_layer("{default: 2, layers: {7: 8}}"), ("2", 7, "8"))
        self.assertIsNone(records.one_layer("{default: 2, layers: {7: 8, 9: 8}}"))
        self.assertIsNone(records.one_layer("{default: 2, layers: {7-8: 8}}"))
        self.assertIsNone(records.one_layer("2"))


class TestProgram(unittest.TestCase):
    def run_script(self, analysis, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder) / "analysis.json"
            source.write_text(analysis if isinstance(analysis, str) else json.dumps(analysis))
            out = pathlib.Path(folder) / "out"
            done = subprocess.run([sys.executable, SCRIPT, source, "--out", out, *arguments], capture_output=True,
                                  text=True)
            files = {p.name: p.read_bytes() for p in out.glob("*")} if out.exists() else {}
            fonts = {p.name: embedded_fonts(p) for p in out.glob("*.pdf")}
            return done, files, fonts

    def test_files_index_captions_and_fonts(self):
        done, files, fonts = self.run_script(synthetic(["uniform"]), "--set", "paper")
        self.assertEqual(done.returncode, 0, done.stderr)
        index = json.loads(files["index.json"])
        drawn = [e for e in index["entries"] if "files" in e]
        self.assertGreater(len(drawn), 10)
        for entry in drawn:
            for name in entry["files"]:
                self.assertGreater(len(files[name]), 1000, name)
            self.assertIn(entry["caption"], files["figures.md"].decode())
            self.assertIn(r"\label{fig:" + entry["name"] + "}", files["captions.tex"].decode())
        for entry in index["entries"]:
            if "not_drawn" in entry:
                self.assertIn(f"not drawn: {entry['name']}: {entry['not_drawn']}", done.stderr)
        for name, (kinds, without) in fonts.items():
            self.assertIn(b"CIDFontType2", kinds, name)  # Type 42
            self.assertNotIn(b"Type3", kinds, name)
            self.assertEqual(without, 0, name)

    def test_the_same_analysis_makes_the_same_bytes(self):
        small = synthetic(["uniform"])
        small["groups"] = small["groups"][:1]
        small["pools"] = []
        _, first, _ = self.run_script(small, "--format", "pdf,svg")
        _, second, _ = self.run_script(small, "--format", "pdf,svg")
        self.assertTrue(any(name.endswith(".svg") for name in first))
        self.assertEqual({n: d for n, d in first.items() if n != "index.json"},
                         {n: d for n, d in second.items() if n != "index.json"})

    def test_bad_input_is_refused_with_what_is_allowed(self):
        for analysis, arguments, message in [
                ("{", [], "cannot be read as JSON"), ({"kvsweep_analysis": 2}, [], "kvsweep_analysis is 2"),
                ([], [], "kvsweep_analysis is None"), (synthetic(["uniform"]), ["--format", "gif"], "not one of pdf, png"),
                (synthetic(["uniform"]), ["--venue", "cvpr"], "neurips")]:
            done, files, _ = self.run_script(analysis, *arguments)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(message, done.stderr)
            self.assertEqual(files, {})


if __name__ == "__main__":
    if "--here" not in sys.argv:
        sys.exit(in_venv())
    sys.argv.remove("--here")
    unittest.main()
