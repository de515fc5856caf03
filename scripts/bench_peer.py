#!/usr/bin/env python3
"""The peer of `kvsweep model bench`: transformers in float32 on a CPU, the same weights, the same measurements.

  bench_peer.py convert MODEL.gguf FOLDER          float32 Hugging Face folder from the GGUF
  bench_peer.py run FOLDER --prefill N --decode N  one JSON line, keys as kvsweep prints them

Run by scripts/bench_model.sh in a venv of its own. Only weights are converted: transformers reads the tokenizer of this
GGUF wrongly, and timing needs none.
"""
import argparse
import json
import os
import statistics
import time


def convert(arguments):
    import torch
    from transformers import AutoModelForCausalLM

    folder, file = os.path.split(os.path.abspath(arguments.gguf))
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    model.save_pretrained(arguments.folder)


def status_bytes(key):
    with open("/proc/self/status", encoding="ascii") as lines:
        for line in lines:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    return 0


def run(arguments):
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache

    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    model = AutoModelForCausalLM.from_pretrained(arguments.folder, dtype=torch.float32, attn_implementation="sdpa")
    model.eval()
    # The ids that `kvsweep model bench` takes: any will do, the time does not depend on them.
    ids = torch.tensor([[(i * 7919 + 13) % model.config.vocab_size for i in range(arguments.prefill)]])
    cache = DynamicCache(config=model.config)
    start = time.perf_counter()
    model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    prefill_s = time.perf_counter() - start
    steps = []
    for i in range(arguments.decode):
        token = ids[:, i % arguments.prefill : i % arguments.prefill + 1]
        start = time.perf_counter()
        model(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1)
        steps.append(1000 * (time.perf_counter() - start))
    print(
        json.dumps(
            {
                "program": "transformers",
                "prefill_tokens": arguments.prefill,
                "prefill_s": prefill_s,
                "decode_ms_median": statistics.median(steps),
                "decode_ms_min": min(steps),
                "decode_steps": arguments.decode,
                "threads": torch.get_num_threads(),
                "weight_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
                "cache_bytes": sum(l.keys.nbytes + l.values.nbytes for l in cache.layers),
                "peak_rss_bytes": status_bytes("VmHWM"),
                "anonymous_rss_bytes": status_bytes("RssAnon"),
                "file_rss_bytes": status_bytes("RssFile"),
            }
        )
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    converting = commands.add_parser("convert")
    converting.add_argument("gguf")
    converting.add_argument("folder")
    converting.set_defaults(body=convert)
    running = commands.add_parser("run")
    running.add_argument("folder")
    running.add_argument("--prefill", type=int, default=2048)
    running.add_argument("--decode", type=int, default=16)
    running.add_argument("--threads", type=int, default=os.cpu_count())
    running.set_defaults(body=run)
    arguments = parser.parse_args()
    arguments.body(arguments)


if __name__ == "__main__":
    main()
