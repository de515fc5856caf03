#!/usr/bin/env python3
"""Checks the layers of the source tree: who may include whom, where torch and JSON may appear, and that a plug-in is
one file with one external symbol that nobody else names.

    check_includes.py [ROOT]     prints file:line and the broken rule; exit 1 when there is one
"""
import pathlib
import re
import sys

# What every part of the report stands on, and the parts, which are blind to one another.
REPORT = ["harness/report/statistics", "harness/report", "harness/report/analysis"]
REPORT_PARTS = ["harness/report/compare", "harness/report/html"]

# Folder -> folders that it may include besides itself. The longest matching prefix of a path is its folder.
LAYERS = {
    "harness/core": [],
    "harness/files": ["harness/core"],
    "harness/attention": ["harness/core"],
    "schemes/kernels": [],
    "schemes/codec": ["harness/core", "schemes/kernels"],
    "schemes/parts": ["harness/core", "harness/files", "schemes/codec", "schemes/kernels"],
    "schemes": ["harness/core", "harness/files", "harness/attention", "schemes/codec", "schemes/parts"],
    "models": ["harness/core", "harness/files", "harness/attention"],
    "tasks/metrics": ["harness/core"],
    "tasks/data": ["harness/core", "tasks/metrics"],
    "tasks": ["harness/core", "tasks/metrics", "tasks/data"],
    "harness/report/statistics": ["harness/core"],
    "harness/report": ["harness/core", "harness/report/statistics"],
    "harness/report/analysis": ["harness/core", *REPORT],
    "harness/report/compare": ["harness/core", *REPORT],
    "harness/report/html": ["harness/core", *REPORT],
    "harness/run": ["harness/core", "harness/files", "harness/attention", "schemes/codec", "schemes/parts", "models",
                    "tasks/metrics", "tasks/data", "harness/report", "harness/report/statistics"],
    "harness/cli": ["harness/core", "harness/files", "harness/attention", "schemes/codec", "schemes/parts", "models",
                    "tasks/metrics", "tasks/data", *REPORT, *REPORT_PARTS, "harness/run"],
    "harness": ["harness/cli"],  # main.cc
    "tests": ["harness", "harness/core", "harness/files", "harness/attention", *REPORT, *REPORT_PARTS, "harness/run",
              "harness/cli", "schemes/codec", "schemes/kernels", "schemes/parts", "models", "tasks/metrics",
              "tasks/data"],
}
SOURCE_FOLDERS = ["harness", "schemes", "models", "tasks", "tests"]
SUFFIXES = {".h", ".cc", ".cu", ".cuh"}

# Built without torch: these folders, the sources that CMakeLists.txt lists for kvsweep_plain, and x_test.cc files.
PLAIN_FOLDERS = ("harness/report/", "tasks/", "tests/support/", "schemes/kernels/")
PLAIN_LIST = re.compile(r"add_library\(kvsweep_plain([^)]*)\)")
TORCH_HEADER = re.compile(r"(ATen|c10|torch)/")

# Folder whose .cc files are plug-ins -> type that the entry function returns.
PLUGINS = {"schemes": "SchemeEntry", "tasks": "TaskEntry"}

# Made at build time.
GENERATED = {"version.inc": ["harness/run", "harness/cli"]}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|R"(?P<d>[^(\s]*)\(.*?\)(?P=d)"|"(?:\\.|[^"\\\n])*"|'
                      r"(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'", re.DOTALL)


def blank(match):
    """Comments and literals as spaces, so that line numbers stay."""
    return re.sub(r"[^\n]", " ", match[0])


def folder_of(path):
    matching = [layer for layer in LAYERS if path.startswith(layer + "/")]
    return max(matching, key=len, default=None)


class Tree:
    def __init__(self, root):
        self.texts = {}
        for folder in SOURCE_FOLDERS:
            for file in sorted((root / folder).rglob("*")):
                if file.suffix in SUFFIXES:
                    self.texts[file.relative_to(root).as_posix()] = file.read_text(encoding="utf-8")
        self.includes = {path: [(text.count("\n", 0, m.start(1)) + 1, m[1] == "<", m[2])
                                for m in INCLUDE.finditer(text)]
                         for path, text in self.texts.items()}
        lists = root / "CMakeLists.txt"
        match = PLAIN_LIST.search(lists.read_text(encoding="utf-8")) if lists.is_file() else None
        self.plain = set(match[1].split()) if match else set()
        self.problems = []

    def report(self, path, line, rule):
        self.problems.append(f"{path}:{line}: {rule}")

    def is_plain(self, path):
        if path.startswith("tests/support/torch/"):
            return False
        is_plain_test = path.endswith("_test.cc") and not path.endswith(("_torch_test.cc", "_gpu_test.cc"))
        return is_plain_test or path.startswith(PLAIN_FOLDERS) or path in self.plain

    def way_to_torch(self, path, seen):
        """The chain of includes from `path` to a torch header, or None."""
        for _, system, name in self.includes.get(path, []):
            if system and TORCH_HEADER.match(name):
                return [name]
            if not system and name not in seen:
                seen.add(name)
                chain = self.way_to_torch(name, seen)
                if chain:
                    return [name, *chain]
        return None

    def check_edge(self, path, line, name):
        layer = folder_of(path)
        if name in GENERATED:
            if layer not in GENERATED[name]:
                self.report(path, line, f"{name} belongs to {' and '.join(GENERATED[name])}")
        elif name not in self.texts:
            self.report(path, line, f'"{name}" is no file of the project; paths are written from the root')
        elif folder_of(name) != layer and folder_of(name) not in LAYERS[layer]:
            allowed = ", ".join(LAYERS[layer]) or "nothing"
            self.report(path, line, f"{layer} may not include {folder_of(name)} (allowed: itself, {allowed})")

    def check_header_use(self, path, line, name):
        if name == "torch/torch.h":
            self.report(path, line, "<torch/torch.h> costs four times <ATen/ATen.h> to compile; include what is used")
        if name == "ATen/ATen.h" and path.endswith(".h") and not path.startswith("tests/"):
            self.report(path, line, "a header includes <ATen/core/Tensor.h>, not <ATen/ATen.h>")
        if name.startswith("nlohmann/") and path.endswith(".h"):
            self.report(path, line, "nlohmann/json is included by .cc files only")

    def check_includes(self):
        for path, includes in self.includes.items():
            for line, system, name in includes:
                if system:
                    self.check_header_use(path, line, name)
                else:
                    self.check_edge(path, line, name)
                if self.is_plain(path):
                    self.check_torch(path, line, system, name)

    def check_torch(self, path, line, system, name):
        if system:
            chain = [name] if TORCH_HEADER.match(name) else None
        else:
            chain = self.way_to_torch(name, {name})
            chain = chain and [name, *chain]
        if chain:
            self.report(path, line, f"is built without torch, but includes {' -> '.join(chain)}")

    def check_plugins(self):
        code = {path: NOT_CODE.sub(blank, text) for path, text in self.texts.items()}
        for path, text in code.items():
            folder, _, name = path.rpartition("/")
            if folder not in PLUGINS:
                continue
            if not name.endswith(".cc"):
                self.report(path, 1, f"{folder}/ holds plug-ins, one .cc each; shared code goes into a folder below")
                continue
            self.check_symbols(path, text, f"{PLUGINS[folder]} {name[:-3]}_entry()")
            for other, other_text in code.items():
                match = re.search(rf"\b{name[:-3]}_entry\b", other_text)
                if match and other != path:
                    self.report(other, other_text.count("\n", 0, match.start()) + 1,
                                f"names the plug-in of {path}; it is reached through the generated table")

    def check_symbols(self, path, text, entry):
        found = list(external_definitions(text))
        for line, head in found:
            if head != entry:
                self.report(path, line, f"`{head}` is visible outside; a plug-in has one external symbol, `{entry}`, "
                                        "the rest stands in an anonymous namespace")
        if entry not in [head for _, head in found]:
            self.report(path, 1, f"defines no `{entry}` in namespace kvsweep")


def external_definitions(text):
    """(line, head) of every declaration of a file outside anonymous namespaces; the head of `int f() {}` is `int f()`.
    using-declarations, static_assert and constants (internal linkage) are left out. `text` has no comments or
    literals."""
    text = re.sub(r"^\s*#(?:.*\\\n)*.*", blank, text, flags=re.MULTILINE)
    start = 0
    position = 0
    while position < len(text):
        if text[position] in "{;}":
            head = " ".join(text[start:position].split())
            line = text.count("\n", 0, position - len(text[start:position].lstrip())) + 1
            if text[position] == "{" and not re.fullmatch(r"namespace \w+(::\w+)*", head):
                position = closing_brace(text, position)
                if head == "namespace":
                    head = ""
            elif text[position] == "{":
                head = ""
            if head and not re.match(r"(using|static_assert|static|constexpr|const)\b", head):
                yield line, head
            start = position + 1
        position += 1


def closing_brace(text, position):
    depth = 0
    for at in range(position, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at
    return len(text)


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    tree = Tree(root)
    if not tree.texts:
        print(f"{root}: no source file found", file=sys.stderr)
        return 1
    tree.check_includes()
    tree.check_plugins()
    print(*sorted(tree.problems), f"{len(tree.texts)} files, {len(tree.problems)} problems", sep="\n")
    return 1 if tree.problems else 0


if __name__ == "__main__":
    sys.exit(main())
