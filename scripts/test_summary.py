#!/usr/bin/env python3
"""Prints what a CTest run did, from its JUnit file: counts, then each failed and each skipped test by name with the
reason that it gave."""
import collections
import re
import sys
import xml.etree.ElementTree


def skip_reason(output):
    """Catch2 writes the message of SKIP() below a line that ends with `SKIPPED:`; scripts write one line."""
    match = re.search(r"SKIPPED:\s*\n(?:explicitly with messages?:\n)?\s*(.+)", output)
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return match[1].strip() if match else (lines[-1].removeprefix("skipped: ") if lines else "no reason given")


def main():
    cases = xml.etree.ElementTree.parse(sys.argv[1]).getroot().findall("testcase")
    failed = sorted(case.get("name") for case in cases if case.get("status") == "fail")
    skipped = collections.defaultdict(list)  # reason -> names
    for case in cases:
        if case.get("status") == "notrun":
            skipped[skip_reason(case.findtext("system-out") or "")].append(case.get("name"))
    count = sum(len(names) for names in skipped.values())
    print(f"{len(cases)} tests: {len(cases) - len(failed) - count} passed, {len(failed)} failed, {count} skipped")
    for name in failed:
        print(f"  FAILED   {name}")
    for reason, names in sorted(skipped.items()):
        print(f"  skipped because: {reason}")
        for name in sorted(names):
            print(f"    {name}")


if __name__ == "__main__":
    main()
