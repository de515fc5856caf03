#!/usr/bin/env python3
# contract: scripts/test_summary.py names every failed and every skipped test, and the reason of a skip.
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "test_summary.py"

# As CTest 3.25 writes it, with the output of a Catch2 3.7 skip.
RESULTS = """<testsuite>
<testcase name="adds" status="run"><system-out>ok</system-out></testcase>
<testcase name="divides" status="fail"><failure message="" /><system-out>no</system-out></testcase>
<testcase name="reads" status="notrun"><skipped message="SKIP_RETURN_CODE=4" /><system-out>
x_test.cc:6: SKIPPED:
explicitly with message:
  no data in KVSWEEP_DATA

test cases: 1 | 1 skipped
</system-out></testcase>
<testcase name="clang_format" status="notrun"><skipped message="SKIP_RETURN_CODE=4" />
<system-out>skipped: no clang-format 14
</system-out></testcase>
</testsuite>"""

SUMMARY = """4 tests: 1 passed, 1 failed, 2 skipped
  FAILED   divides
  skipped because: no clang-format 14
    clang_format
  skipped because: no data in KVSWEEP_DATA
    reads
"""


class TestSummary(unittest.TestCase):
    def test_failures_and_skips_are_named_with_their_reasons(self):
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
            file.write(RESULTS)
            file.flush()
            result = subprocess.run([sys.executable, SCRIPT, file.name], capture_output=True, text=True)
        self.assertEqual(result.stdout, SUMMARY, result.stderr)


if __name__ == "__main__":
    unittest.main()
