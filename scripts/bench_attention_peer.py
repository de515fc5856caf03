#!/usr/bin/env python3
"""Times llama.cpp's flash attention (ggml_flash_attn_ext) of one query on one thread, through the shared libraries of
llama-cpp-python, and prints one JSON line a shape and type.

    bench_attention_peer.py KV_HEADS GROUPS DIM TOKENS[,TOKENS...] ROUNDS

ns_min and ns_median are ns a cached token and kv-head; buffers of at least 160 MiB are gone through in turn.
"""
import ctypes
import json
import pathlib
import statistics
import sys
import time

import llama_cpp
import numpy as np

TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8}
PAIRS = [("q4_0", "q4_0"), ("q8_0", "q8_0"), ("f16", "f16")]
ROOM = 160 << 20


class Parameters(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


def load():
    folder = pathlib.Path(llama_cpp.__file__).parent / "lib"
    libraries = [ctypes.CDLL(str(folder / f"lib{name}.so"), mode=ctypes.RTLD_GLOBAL)
                 for name in ("ggml-base", "ggml-cpu", "ggml")]
    base, cpu = libraries[0], libraries[1]
    pointer = ctypes.c_void_p
    base.ggml_init.restype, base.ggml_init.argtypes = pointer, [Parameters]
    base.ggml_free.argtypes = [pointer]
    base.ggml_new_tensor_4d.restype = pointer
    base.ggml_new_tensor_4d.argtypes = [pointer, ctypes.c_int] + 4 * [ctypes.c_int64]
    base.ggml_flash_attn_ext.restype = pointer
    base.ggml_flash_attn_ext.argtypes = 5 * [pointer] + 3 * [ctypes.c_float]
    base.ggml_new_graph.restype, base.ggml_new_graph.argtypes = pointer, [pointer]
    base.ggml_build_forward_expand.argtypes = [pointer, pointer]
    base.ggml_get_data.restype, base.ggml_get_data.argtypes = pointer, [pointer]
    base.ggml_nbytes.restype, base.ggml_nbytes.argtypes = ctypes.c_size_t, [pointer]
    base.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer] + 3 * [ctypes.c_int64] + [pointer]
    base.ggml_quantize_chunk.restype = ctypes.c_size_t
    cpu.ggml_graph_compute_with_ctx.argtypes = [pointer, pointer, ctypes.c_int]
    cpu.ggml_cpu_init()
    return base, cpu


def fill(base, tensor, kind, rows, dim, rng):
    values = rng.standard_normal((rows, dim), dtype=np.float32)
    if kind == "f16":
        values = values.astype(np.float16)
    if kind in ("f16", "f32"):
        ctypes.memmove(base.ggml_get_data(tensor), values.ctypes.data, values.nbytes)
    else:
        base.ggml_quantize_chunk(TYPES[kind], values.ctypes.data, base.ggml_get_data(tensor), 0, rows, dim, None)


def measure(base, cpu, pair, heads, groups, dim, tokens, rounds):
    rng = np.random.default_rng(1)
    context = base.ggml_init(Parameters(2 * ROOM + (1 << 30), None, False))
    query = base.ggml_new_tensor_4d(context, TYPES["f32"], dim, 1, heads * groups, 1)
    fill(base, query, "f32", heads * groups, dim, rng)
    graphs, size = [], 0
    while size < ROOM or not graphs:
        tensors = []
        for kind in pair:
            tensor = base.ggml_new_tensor_4d(context, TYPES[kind], dim, tokens, heads, 1)
            fill(base, tensor, kind, heads * tokens, dim, rng)
            size += base.ggml_nbytes(tensor)
            tensors.append(tensor)
        graph = base.ggml_new_graph(context)
        out = base.ggml_flash_attn_ext(context, query, *tensors, None, dim ** -0.5, 0.0, 0.0)
        base.ggml_build_forward_expand(graph, out)
        graphs.append(graph)
    times, turn = [], 0
    for round_ in range(rounds + 1):
        best = 1e30
        for _ in range(3):
            start = time.perf_counter()
            cpu.ggml_graph_compute_with_ctx(context, graphs[turn % len(graphs)], 1)
            best = min(best, time.perf_counter() - start)
            turn += 1
        if round_ > 0:
            times.append(1e9 * best / (tokens * heads))
    base.ggml_free(context)
    return times


def main():
    heads, groups, dim = (int(x) for x in sys.argv[1:4])
    rounds = int(sys.argv[5])
    base, cpu = load()
    for tokens in (int(x) for x in sys.argv[4].split(",")):
        for pair in PAIRS:
            times = measure(base, cpu, pair, heads, groups, dim, tokens, rounds)
            print(json.dumps({"program": "llama.cpp", "k": pair[0], "v": pair[1], "tokens": tokens,
                              "ns_min": round(min(times), 2), "ns_median": round(statistics.median(times), 2)}),
                  flush=True)


if __name__ == "__main__":
    main()
