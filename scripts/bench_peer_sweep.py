#!/usr/bin/env python3
"""Measurements of scripts/bench_sweep.sh, one JSON line each, and its report.

  bench_peer_sweep.py gemm                           products of the model's shapes: the rate behind the floor
  bench_peer_sweep.py time NAME COMMAND...           runs the command: wall and CPU seconds, peak memory
  bench_peer_sweep.py transformers FOLDER --cache C  the loop of a transformers user over a few prompts
  bench_peer_sweep.py label RESULTS                  a pattern that the first configuration alone matches
  bench_peer_sweep.py report LINES OUT               what they mean together

The prompts of the transformers loop are made-up tokens of the sweep's length: time does not depend on what they say.
Every answer has 16 tokens there, as max_new_tokens asks; the program stops where the model ends its answer, and the
report says how many tokens that were.
"""
import argparse
import collections
import json
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import time

CONTEXT, GENERATED = 1024, 16
# SmolLM2-135M
LAYERS, HIDDEN, QUERY_HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, VOCAB = 30, 576, 9, 3, 64, 1536, 49152
LAYER_PRODUCTS = [(HIDDEN, (QUERY_HEADS + 2 * KV_HEADS) * HEAD_DIM), (QUERY_HEADS * HEAD_DIM, HIDDEN),
                  (HIDDEN, 2 * INTERMEDIATE), (INTERMEDIATE, HIDDEN)]


def gemm(arguments):
    """Best of a few rounds: the floor is what this machine can do, not what it does while others use it."""
    import torch

    torch.set_num_threads(arguments.threads)
    rates = {}
    for rows in (1024, 32):
        work = [(torch.randn(rows, k), torch.randn(k, n)) for k, n in LAYER_PRODUCTS]
        flops = sum(2 * rows * k * n for k, n in LAYER_PRODUCTS)
        best = float("inf")
        for _ in range(9):
            start = time.perf_counter()
            for _ in range(max(1, 2048 // rows // 4)):
                for x, w in work:
                    x @ w
            best = min(best, (time.perf_counter() - start) / max(1, 2048 // rows // 4))
        rates[rows] = flops / best
    print(json.dumps({"name": "gemm", "threads": arguments.threads, "flops_1024_rows": rates[1024],
                      "flops_32_rows": rates[32]}))


def timed(arguments):
    start = time.perf_counter()
    prefilled = None
    with subprocess.Popen(arguments.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        for line in run.stderr:  # the program's progress, as it comes
            sys.stderr.write(line)
            prefilled = re.search(r"(\d+) of (\d+) context tokens were prefilled", line) or prefilled
    wall, status = time.perf_counter() - start, run.returncode
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    if status != 0:
        sys.exit(f"{' '.join(arguments.command)}: status {status}")
    print(json.dumps({"name": arguments.name, "wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime,
                      "peak_bytes": usage.ru_maxrss * 1024, "load": os.getloadavg()[0],
                      "prefilled": int(prefilled[1]) / int(prefilled[2]) if prefilled else 1,
                      "command": " ".join(arguments.command)}))


def transformers(arguments):
    start = time.perf_counter()
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache, QuantizedCache

    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    model = AutoModelForCausalLM.from_pretrained(arguments.folder, dtype=torch.float32, attn_implementation="sdpa")
    model.eval()
    start_s = time.perf_counter() - start

    def cache():
        if arguments.cache == "full":
            return DynamicCache(config=model.config)
        backend, bits = arguments.cache[:-1], int(arguments.cache[-1])
        axis = 0 if backend == "quanto" else 1
        return QuantizedCache(backend=backend, config=model.config, nbits=bits, axis_key=axis, axis_value=axis,
                              q_group_size=64, residual_length=128)

    def answer(sample):
        ids = torch.tensor([[(i * 7919 + 13 + 101 * sample) % VOCAB for i in range(CONTEXT)]])
        model.generate(ids, attention_mask=torch.ones_like(ids), past_key_values=cache(), max_new_tokens=GENERATED,
                       min_new_tokens=GENERATED, do_sample=False, pad_token_id=2)

    answer(0)  # quanto compiles an extension when it is first used
    samples, cpu = [], time.process_time()
    for i in range(arguments.samples):
        start = time.perf_counter()
        answer(i)
        samples.append(time.perf_counter() - start)
    print(json.dumps({"name": "transformers", "cache": arguments.cache, "start_s": start_s, "sample_s": samples,
                      "cpu_s": time.process_time() - cpu, "load": os.getloadavg()[0],
                      "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def label(arguments):
    with open(pathlib.Path(arguments.results) / "records.jsonl", encoding="utf-8") as lines:
        point = json.loads(lines.readline())["point"]
    print("*| " + " ".join([point["scheme"], *(f"{key}={value}" for key, value in point["scheme_params"].items())]) + " |*")


def read_samples(directory):
    with open(directory / "samples.jsonl", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def floor_of(samples, prefilled, rate):
    """Seconds of the products that no schedule avoids: each context once but for what it has in common with one before
    it, query and answer of every row. prefilled: the share of context tokens that is left."""
    weights = sum(k * n for k, n in LAYER_PRODUCTS) * LAYERS
    contexts = {sample["prompt_hash"]: sample["context_tokens"] for sample in samples}.values()
    # Causal attention: every token looks at half of the context, scores and weighted sums.
    prefill = sum(2 * weights * t + 4 * LAYERS * QUERY_HEADS * HEAD_DIM * t * t / 2 for t in contexts)
    rows = sum(sample["query_tokens"] + len(sample["output_tokens"]) for sample in samples)
    scored = sum(1 + len(sample["output_tokens"]) for sample in samples)
    decode = 2 * weights * rows + 2 * HIDDEN * VOCAB * scored
    return prefilled * prefill / rate, decode / rate


def report(arguments):
    runs = collections.defaultdict(list)
    with open(arguments.lines, encoding="utf-8") as lines:
        for line in lines:
            run = json.loads(line)
            runs[run["name"] + (" " + run["cache"] if "cache" in run else "")].append(run)
    out = pathlib.Path(arguments.out)
    sweep = read_samples(next(iter(sorted(out.glob("sweep-*")))))
    alone = read_samples(next(iter(sorted(out.glob("alone-*")))))
    records = (next(iter(sorted(out.glob("sweep-*")))) / "records.jsonl").read_text(encoding="utf-8").splitlines()
    configurations, prompts = len(records), len({sample["sample_id"] for sample in sweep})
    cells, alone_prompts = configurations * prompts, len({sample["sample_id"] for sample in alone})

    def table(runs):
        """A row each: name, wall and CPU seconds a sample and configuration, total, whether extrapolated, peak."""
        def median(name, key):
            return statistics.median(run[key] for run in runs[name])

        start = {key: median("start", key) for key in ("wall_s", "cpu_s")}
        wall, cpu = (max(median("sweep", key) - start[key], 1e-9) / cells for key in ("wall_s", "cpu_s"))
        rows = [("kvsweep sweep", wall, cpu, start["wall_s"] + wall * cells, False, median("sweep", "peak_bytes"))]
        # What is done once is in the first prompt; the others say what a prompt costs.
        more = alone_prompts - 1
        wall, cpu = (max(median("alone", key) - median("alone first", key), 1e-9) / (configurations * more)
                     for key in ("wall_s", "cpu_s"))
        total = median("alone first", "wall_s") + wall * configurations * (prompts - 1)
        peak = median("alone", "peak_bytes")
        rows.append(("kvsweep alone", wall, cpu, total, alone_prompts < prompts, peak))
        total += (configurations - 1) * median("start of one", "wall_s")
        rows.append(("kvsweep alone, a run for each", wall, cpu, total, True, peak))
        peers = []
        for name in runs:
            if not name.startswith("transformers"):
                continue
            wall = statistics.median(second for run in runs[name] for second in run["sample_s"])
            cpu = statistics.median(run["cpu_s"] / len(run["sample_s"]) for run in runs[name])
            peers.append((name, wall, cpu, median(name, "start_s") + wall * cells, True, median(name, "peak_bytes")))
        if peers:
            quantized = [row for row in peers if row[0] != "transformers full"] or peers
            mean = [statistics.fmean(row[i] for row in quantized) for i in (1, 2, 3)]
            rows += peers + [("transformers, mean of quantized", *mean, True, max(row[5] for row in quantized))]
        return rows

    turns = len(runs["sweep"])
    rows = table(runs)
    by_turn = [table({name: [of[turn]] for name, of in runs.items()}) for turn in range(turns)]
    print(f"\n{configurations} configurations x {prompts} prompts of {CONTEXT} tokens, medians of {turns} turns")
    print(f"{'':34}{'s a sample and configuration':>30}{'CPU s':>9}{'total s':>12}{'times the sweep (by turn)':>29}"
          f"{'peak MB':>9}")
    for i, (name, wall, cpu, total, extrapolated, peak) in enumerate(rows):
        shown = f"{'~' if extrapolated else ''}{total:.0f}"
        ratios = [turn[i][3] / turn[0][3] for turn in by_turn]
        times = f"{total / rows[0][3]:.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        print(f"{name:34}{wall:30.4f}{cpu:9.4f}{shown:>12}{times:>29}{peak / 1e6:9.0f}")
    print("~ extrapolated from the prompts that ran; totals with start: loading the model, kvsweep's plan, which a run for "
          "each configuration does that often")
    prefills = statistics.fmean(sample["time"]["prefill_ms"] for sample in alone) / 1000
    print(f"kvsweep alone: {prefills:.2f} s of a sample and configuration are its prefill; the rest is full precision's "
          "continuation, which it is compared with, and its own")
    rate = max(run["flops_1024_rows"] for run in runs["gemm"])
    few = max(run["flops_32_rows"] for run in runs["gemm"])
    prefilled = statistics.median(run["prefilled"] for run in runs["sweep"])
    prefill, decode = floor_of(sweep, prefilled, rate)
    tokens = statistics.fmean(len(sample["output_tokens"]) for sample in sweep)
    print(f"floor: products alone at the best rate measured here ({rate / 1e9:.0f} GFLOP/s with 1,024 rows, "
          f"{few / 1e9:.0f} with 32): contexts {prefill:.1f} s ({100 * prefilled:.0f} % of their tokens, the others came with a context "
          f"before), query and answer of every row {decode:.1f} s "
          f"({tokens:.1f} tokens an answer, {GENERATED} in transformers); the sweep took "
          f"{rows[0][3] / (prefill + decode):.1f} times that")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="body", required=True)
    command = commands.add_parser("gemm")
    command.add_argument("--threads", type=int, default=os.cpu_count())
    command.set_defaults(body=gemm)
    command = commands.add_parser("time")
    command.add_argument("name")
    command.add_argument("command", nargs=argparse.REMAINDER)
    command.set_defaults(body=timed)
    command = commands.add_parser("transformers")
    command.add_argument("folder")
    command.add_argument("--cache", choices=["full", "quanto4", "quanto2", "hqq4"], default="quanto4")
    command.add_argument("--samples", type=int, default=2)
    command.add_argument("--threads", type=int, default=os.cpu_count())
    command.set_defaults(body=transformers)
    command = commands.add_parser("label")
    command.add_argument("results")
    command.set_defaults(body=label)
    command = commands.add_parser("report")
    command.add_argument("lines")
    command.add_argument("out")
    command.set_defaults(body=report)
    arguments = parser.parse_args()
    arguments.body(arguments)


if __name__ == "__main__":
    main()
