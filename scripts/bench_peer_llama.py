#!/usr/bin/env python3
"""Measurements of scripts/bench_llama.sh, one JSON line each, and its report.

  bench_peer_llama.py ours < CSV            lines from what `kvsweep bench itl --format csv` prints
  bench_peer_llama.py theirs MODEL.gguf     llama.cpp: 8 tokens after each length, flash attention, every cache type
  bench_peer_llama.py report LINES          a line for each program and type
"""
import argparse
import collections
import csv
import ctypes
import json
import os
import statistics
import sys
import time

TYPES = {"f16": 1, "q8_0": 8, "q4_0": 2}  # numbers of ggml_type
STEPS = 8
BATCH = 512


def ours(_):
    rows = csv.DictReader(line for line in sys.stdin if line.strip() and not line.startswith("#"))
    for row in rows:
        if row["scheme"] == "scheme":  # the header of the next table
            break
        kind = "f16" if row["scheme"] == "full" else row["parameters"].split("k_type=")[1].split(" ")[0]
        print(json.dumps({"program": "kvsweep", "type": kind, "tokens": int(row["tokens"]), "ms": float(row["itl ms"]),
                          "path": row["path"], "load": os.getloadavg()[0]}))


def theirs(arguments):
    import llama_cpp as llama

    silent = llama.llama_log_callback(lambda *_: None)
    llama.llama_backend_init()
    llama.llama_log_set(silent, ctypes.c_void_p(0))
    parameters = llama.llama_model_default_params()
    parameters.n_gpu_layers = 0
    model = llama.llama_model_load_from_file(arguments.model.encode(), parameters)
    vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))

    def context(kind, tokens):
        wanted = llama.llama_context_default_params()
        wanted.n_ctx, wanted.n_batch, wanted.n_ubatch = tokens, BATCH, BATCH
        wanted.n_threads = wanted.n_threads_batch = arguments.threads
        wanted.type_k = wanted.type_v = TYPES[kind]
        wanted.flash_attn_type = 1
        wanted.offload_kqv = wanted.op_offload = False
        made = llama.llama_init_from_model(model, wanted)
        if not made:
            sys.exit(f"llama.cpp refuses a context with caches of {kind}")
        return made

    def feed(into, tokens, position):
        batch = llama.llama_batch_init(BATCH, 0, 1)
        for first in range(0, len(tokens), BATCH):
            part = tokens[first : first + BATCH]
            for i, token in enumerate(part):
                batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position + first + i, 1
                batch.seq_id[i][0], batch.logits[i] = 0, i + 1 == len(part)
            batch.n_tokens = len(part)
            if llama.llama_decode(into, batch):
                sys.exit("llama_decode failed")
        llama.llama_batch_free(batch)

    for kind in TYPES:
        for length in arguments.lengths:
            tokens = [(i * 7919 + 13) % vocab for i in range(length + STEPS + 1)]
            into = context(kind, length + STEPS + 56)
            feed(into, tokens[:length], 0)
            times = []
            for i in range(STEPS + 1):
                start = time.perf_counter()
                feed(into, tokens[length + i : length + i + 1], length + i)
                times.append(1000 * (time.perf_counter() - start))
            llama.llama_free(into)
            print(json.dumps({"program": "llama.cpp", "type": kind, "tokens": length,
                              "ms": statistics.median(times[1:]), "load": os.getloadavg()[0]}), flush=True)


def fit(points):
    """Least squares: intercept, slope and the slope's standard error."""
    n, mean_x, mean_y = len(points), statistics.fmean(x for x, _ in points), statistics.fmean(y for _, y in points)
    sxx = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sxx
    intercept = mean_y - slope * mean_x
    rss = sum((y - intercept - slope * x) ** 2 for x, y in points)
    return intercept, slope, (rss / (n - 2) / sxx) ** 0.5 if n > 2 else float("nan")


def report(arguments):
    points = collections.defaultdict(list)
    paths = {}
    with open(arguments.lines, encoding="utf-8") as lines:
        for line in lines:
            run = json.loads(line)
            points[run["type"], run["program"]].append((run["tokens"], run["ms"]))
            paths[run["type"]] = run.get("path", paths.get(run["type"]))
    print(f"{'type':6}{'program':12}{'attention':>11}{'intercept ms':>14}{'slope ns/token':>22}")
    slopes = {}
    for (kind, program), seen in sorted(points.items()):
        intercept, slope, error = fit(seen)
        slopes[kind, program] = slope
        shown = f"{1e6 * slope:.0f} ± {1e6 * error:.0f}"
        print(f"{kind:6}{program:12}{paths[kind] if program == 'kvsweep' else 'flash':>11}{intercept:14.2f}{shown:>22}")
    for kind in TYPES:
        if (kind, "kvsweep") in slopes and (kind, "llama.cpp") in slopes:
            print(f"{kind}: a cached token costs llama.cpp {slopes[kind, 'llama.cpp'] / slopes[kind, 'kvsweep']:.2f} "
                  "times what it costs here")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="body", required=True)
    commands.add_parser("ours").set_defaults(body=ours)
    command = commands.add_parser("theirs")
    command.add_argument("model")
    command.add_argument("--threads", type=int, default=os.cpu_count())
    command.add_argument("--lengths", type=lambda text: [int(word) for word in text.split(",")], default=[512, 2048])
    command.set_defaults(body=theirs)
    command = commands.add_parser("report")
    command.add_argument("lines")
    command.set_defaults(body=report)
    arguments = parser.parse_args()
    arguments.body(arguments)


if __name__ == "__main__":
    main()
