#!/usr/bin/env python3
"""contract: what `kvsweep export --format lm-eval` writes is read by lm-evaluation-harness' own code: its names of files,
its table, its loggers; and has what its script for Zeno takes from files. Exit 4: skipped, there is no lm_eval.

    lm_eval_test.py PAGE_TOOL

It is looked for in $KVSWEEP_LM_EVAL, an interpreter (python3 -m venv V; V/bin/pip install lm_eval pandas), then here.
"""
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import types

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "golden" / "report" / "mixed"


def interpreter():
    for python in filter(None, [os.environ.get("KVSWEEP_LM_EVAL"), sys.executable]):
        if subprocess.run([python, "-c", "import lm_eval.utils, pytablewriter"], capture_output=True).returncode == 0:
            return python
    return None


def cells_of(table):
    """Rows of a Markdown table; task and version stand in the first of a task's rows."""
    rows, task, version = [], "", ""
    for line in table.splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        task, version = cells[0] or task, cells[1] or version
        rows.append([task, version, *cells[2:]])
    return rows


def check_table(results, make_table):
    rows = {(row[0], row[4]): row for row in cells_of(make_table(results))}
    for task, metrics in results["results"].items():
        for name, value in metrics.items():
            metric = name.removesuffix(",none")
            if not name.endswith(",none") or metric.endswith("_stderr"):
                continue
            shown = rows[task, metric]
            assert int(shown[1]) == results["versions"][task], shown
            if value is not None:
                assert math.isclose(float(shown[6]), value, abs_tol=6e-5), shown
            error = metrics[f"{metric}_stderr,none"]
            assert shown[8] == "N/A" if error == "N/A" else math.isclose(float(shown[8]), error, abs_tol=6e-5), shown


def check_wandb(results):
    """The aggregates: samples it takes from memory only, its own files' form of them it cannot read."""
    try:
        from lm_eval.loggers.wandb_logger import WandbLogger
    except ImportError as missing:
        print(f"skipped: lm_eval's logger for W&B: {missing}")
        return
    logger = WandbLogger.__new__(WandbLogger)  # without a session
    logger.post_init(results)
    assert logger._get_config()["task_configs"] == results["configs"]
    summary, numbers = logger._sanitize_results_dict()
    for task, metrics in results["results"].items():
        for name, value in metrics.items():
            found = summary if isinstance(value, str) else numbers
            assert found[f"{task}/{name.removesuffix(',none')}"] == value, (task, name)


def check_trackio(task, config, samples):
    try:
        from lm_eval.loggers.trackio_logger import _sample_to_trace
    except ImportError as missing:
        print(f"skipped: lm_eval's logger for Trackio: {missing}")
        return
    trackio = types.SimpleNamespace(Trace=lambda messages, metadata: (messages, metadata))
    for sample in samples:
        messages, metadata = _sample_to_trace(trackio, sample, task, config["output_type"])
        assert messages[1]["content"] == (sample["filtered_resps"] or [""])[0], messages
        for metric in config["metric_list"]:
            assert metadata[metric["metric"]] == sample[metric["metric"]], metadata


def check_zeno(config, samples):
    """What scripts/zeno_visualize.py of the repository looks up, which the package does not contain."""
    for sample in samples:
        assert {"doc_id", "target"} <= set(sample), sample
        assert all(metric["metric"] in sample for metric in config["metric_list"]), sample
        if config["output_type"] == "generate_until":
            assert isinstance(sample["arguments"]["gen_args_0"]["arg_0"], str), sample
            assert isinstance(sample["filtered_resps"][0], str), sample


def inside(out):
    from lm_eval import utils
    tasks = 0
    for folder in sorted(out.iterdir()):
        files = [str(file) for file in folder.iterdir()]
        names = utils.get_results_filenames(files)
        assert len(names) == 1 and utils.get_latest_filename(names) == names[0], names
        results = json.loads(pathlib.Path(names[0]).read_text())
        assert utils.sanitize_model_name(folder.name) == folder.name
        assert isinstance(results["config"]["model_args"], dict)
        check_table(results, utils.make_table)
        check_wandb(results)
        of_task = {utils.get_file_task_name(pathlib.Path(file).name): file for file in utils.get_sample_results_filenames(files)}
        assert set(of_task) == set(results["configs"]) == set(results["results"]), of_task
        for task, file in of_task.items():
            config = results["configs"][task]
            samples = [json.loads(line) for line in open(file, encoding="utf-8")]
            assert len(samples) == results["n-samples"][task]["effective"]
            assert utils.get_file_datetime(pathlib.Path(file).name) in names[0]
            check_trackio(task, config, samples)
            check_zeno(config, samples)
            tasks += 1
    assert tasks > 10, tasks
    print(f"{tasks} tasks read")
    return 0


def main():
    if sys.argv[1] == "--inside":
        return inside(pathlib.Path(sys.argv[2]))
    python = interpreter()
    if python is None:
        print("skipped: no lm_eval, neither here nor in $KVSWEEP_LM_EVAL")
        return 4
    with tempfile.TemporaryDirectory() as folder:
        # A copy: records of an older program are made again where they lie.
        results, out = pathlib.Path(folder) / "results", pathlib.Path(folder) / "out"
        results.mkdir()
        for file in RESULTS.glob("*.jsonl"):
            (results / file.name).write_bytes(file.read_bytes())
        subprocess.run([pathlib.Path(sys.argv[1]).absolute(), "lm-eval", results, out], check=True)
        return subprocess.run([python, __file__, "--inside", out]).returncode


if __name__ == "__main__":
    sys.exit(main())
