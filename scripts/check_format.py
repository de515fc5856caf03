#!/usr/bin/env python3
"""Checks that every C++ and CUDA file is formatted as .clang-format says, by clang-format 14 (other versions break
lines elsewhere). Exit 1: files are named that are not; exit 4: skipped, there is no clang-format 14.

    check_format.py [--fix]
"""
import pathlib
import re
import shutil
import subprocess
import sys

VERSION = "14"
FOLDERS = ["harness", "schemes", "models", "tasks", "tests"]
SUFFIXES = {".h", ".cc", ".cu", ".cuh"}


def find_formatter():
    for name in (f"clang-format-{VERSION}", "clang-format"):
        path = shutil.which(name)
        if path:
            shown = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
            if re.search(rf"version {VERSION}\.", shown):
                return path
    return None


def main():
    if sys.argv[1:] not in ([], ["--fix"]):
        sys.exit(f"unknown arguments {sys.argv[1:]}; allowed: --fix")
    formatter = find_formatter()
    if formatter is None:
        print(f"skipped: no clang-format {VERSION}")
        return 4
    root = pathlib.Path(__file__).resolve().parent.parent
    files = sorted(file for folder in FOLDERS for file in (root / folder).rglob("*") if file.suffix in SUFFIXES)
    if sys.argv[1:]:
        subprocess.run([formatter, "-i", *files], check=True)
        return 0
    result = subprocess.run([formatter, "--dry-run", "-Werror", *files], capture_output=True, text=True)
    places = re.findall(r"^(\S+?):(\d+):\d+: error", result.stderr, re.MULTILINE)
    first = {}
    for path, line in places:
        first.setdefault(path, line)
    for path, line in first.items():
        print(f"{pathlib.Path(path).relative_to(root)}:{line}: not formatted (scripts/check_format.py --fix)")
    if result.returncode and not first:
        print(result.stderr, end="")
    print(f"{len(files)} files, {len(first)} not formatted")
    return 1 if result.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
