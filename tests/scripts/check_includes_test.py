#!/usr/bin/env python3
# contract: each rule of scripts/check_includes.py is seen to fail on a tree that breaks it.
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "check_includes.py"

PLUGIN = """#include "harness/core/scheme.h"
#include "schemes/codec/affine.h"

namespace kvsweep {
namespace {

constexpr int kOne = 1;
struct State {
  int value = '}';  // a brace } that is none
};
const char* text() { return R"(namespace kvsweep { int visible() {)"; }

}  // namespace

SchemeEntry plain_entry() {
  return {"plain", "a { brace", {}};
}

}  // namespace kvsweep
"""

GOOD = {
    "CMakeLists.txt": "add_library(kvsweep_plain STATIC\n  harness/core/hash.cc models/gguf.cc ${PLAIN_SOURCES})\n",
    "harness/core/hash.h": "#include <string>\n",
    "harness/core/hash.cc": '#include "harness/core/hash.h"\n#include <nlohmann/json.hpp>\n',
    "harness/core/scheme.h": "#include <ATen/core/Tensor.h>\n",
    "harness/attention/attention.cc": '#include <ATen/ATen.h>\n#include "harness/core/scheme.h"\n',
    "harness/report/record.h": '#include "harness/core/hash.h"\n',
    "harness/run/runner.h": '#include "harness/report/record.h"\n#include "models/gguf.h"\n',
    "harness/run/runner.cc": '#include "harness/run/runner.h"\n#include "version.inc"\n',
    "harness/cli/run.h": '#include "harness/run/runner.h"\n',
    "harness/main.cc": '#include "harness/cli/run.h"\n',
    "models/gguf.h": "#include <vector>\n",
    "models/llama.h": '#include "harness/core/scheme.h"\n',
    "models/gguf.cc": '#include "models/gguf.h"\n',
    "schemes/codec/affine.h": '#include "harness/core/scheme.h"\n',
    "schemes/parts/residency.h": '#include "schemes/codec/affine.h"\n',
    "schemes/plain.cc": PLUGIN,
    "tasks/metrics/match.h": "#include <string>\n",
    "tasks/needle.cc": '#include "tasks/metrics/match.h"\nnamespace kvsweep {\nTaskEntry needle_entry() { return {}; }\n}\n',
    "tests/models/gguf_test.cc": '#include "models/gguf.h"\n',
    "tests/schemes/plain_torch_test.cc": '#include <ATen/ATen.h>\n#include "schemes/codec/affine.h"\n',
}

# What is wrong -> (file, its text, text that the output has to hold)
BAD = {
    "core includes a layer above": ("harness/core/hash.cc", '\n#include "models/gguf.h"\n',
                                    "harness/core/hash.cc:2: harness/core may not include models"),
    "models include schemes": ("models/llama.cc", '#include "schemes/codec/affine.h"\n', "models/llama.cc:1: models may"),
    "tasks include the report": ("tasks/data/find.cc", '#include "harness/report/record.h"\n', "tasks/data may not"),
    "a codec includes a part": ("schemes/codec/lut.cc", '#include "schemes/parts/residency.h"\n', "schemes/codec may not"),
    "a scheme includes a model": ("schemes/plain.cc", '#include "models/gguf.h"\n' + PLUGIN, "schemes/plain.cc:1: schemes may"),
    "main reaches past the command line": ("harness/main.cc", '#include "harness/run/runner.h"\n', "main.cc:1: harness may not"),
    "the program includes a test": ("harness/run/x.cc", '#include "tests/support/golden.h"\n', "is no file of the project"),
    "a path is not written from the root": ("harness/core/hash.cc", '#include "hash.h"\n', "from the root"),
    "the version is used in a library layer": ("models/llama.cc", '#include "version.inc"\n', "version.inc belongs to"),
    "a report includes torch": ("harness/report/summary.cc", "#include <ATen/ATen.h>\n", "without torch, but includes ATen"),
    "a plain source reaches torch through a header": ("models/gguf.cc", '#include "models/llama.h"\n',
                                                      "models/llama.h -> harness/core/scheme.h -> ATen/core"),
    "a plain test reaches torch": ("tests/core/x_test.cc", '#include "harness/core/scheme.h"\n', "without torch"),
    "torch/torch.h": ("harness/run/runner.cc", "#include <torch/torch.h>\n", "<torch/torch.h> costs"),
    "a header includes all of ATen": ("harness/run/runner.h", "#include <ATen/ATen.h>\n", "a header includes <ATen/core"),
    "JSON in a header": ("harness/report/record.h", "#include <nlohmann/json.hpp>\n", "by .cc files only"),
    "a header among the plug-ins": ("schemes/plain.h", "", "schemes/ holds plug-ins"),
    "a second external function": ("schemes/plain.cc", PLUGIN + "namespace kvsweep {\nint helper(int x) { return x; }\n}\n",
                                   "schemes/plain.cc:21: `int helper(int x)` is visible outside"),
    "a variable outside": ("schemes/plain.cc", PLUGIN + "int counter = 0;\n", "`int counter = 0` is visible outside"),
    "a class outside": ("tasks/needle.cc", GOOD["tasks/needle.cc"] + "class Needle final : public Task {\n int x; };\n",
                        "`class Needle final : public Task` is visible outside"),
    "an entry under another name": ("tasks/other.cc", GOOD["tasks/needle.cc"], "defines no `TaskEntry other_entry()`"),
    "a plug-in named elsewhere": ("harness/run/runner.cc", "\nauto x = kvsweep::plain_entry();\n",
                                  "harness/run/runner.cc:2: names the plug-in of schemes/plain.cc"),
}


def check(files):
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            file = pathlib.Path(root, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        return subprocess.run([sys.executable, SCRIPT, root], capture_output=True, text=True)


class CheckIncludes(unittest.TestCase):
    def test_a_good_tree_passes(self):
        result = check(GOOD)
        self.assertEqual((result.stdout, result.returncode), (f"{len(GOOD) - 1} files, 0 problems\n", 0), result.stderr)

    def test_each_bad_tree_fails_and_names_the_rule(self):
        for what, (path, text, message) in BAD.items():
            with self.subTest(what):
                result = check({**GOOD, path: text})
                self.assertIn(message, result.stdout, result.stderr)
                self.assertEqual(result.returncode, 1)

    def test_an_empty_tree_is_no_success(self):
        self.assertEqual(check({}).returncode, 1)


if __name__ == "__main__":
    unittest.main()
