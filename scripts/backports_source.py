#!/usr/bin/env python3
"""Prints an apt source for a backports suite, made from the machine's own source of the release.

    backports_source.py bookworm-backports [FOLDER]     FOLDER: instead of /etc/apt

The first line of the output is the file's suffix (`sources` or `list`), the rest is its content. Mirror, key and
options are those of the first enabled source of the release: no mirror is named here. Exit 1: there is none.
"""
import pathlib
import re
import sys


def from_deb822(text, release, suite):
    """A paragraph of fields with Suites and Components replaced, or None. Format: deb822-style, sources.list(5)."""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        lines = [line for line in paragraph.splitlines() if line and not line.startswith("#")]
        fields = {}  # name -> its lines, with continuation lines
        for line in lines:
            if not line[0].isspace():
                name = line.split(":", 1)[0].lower()
                fields[name] = [line]
            elif fields:
                fields[name].append(line)

        def words(field):
            return " ".join(fields.get(field, [":"])).split(":", 1)[1].split()

        if "deb" not in words("types") or release not in words("suites") or words("enabled") == ["no"]:
            continue
        fields.update(types=["Types: deb"], suites=[f"Suites: {suite}"], components=["Components: main"])
        return "\n".join(line for value in fields.values() for line in value)
    return None


def from_one_line(text, release, suite):
    """A `deb [options] uri suite components` line with suite and components replaced, or None."""
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(\[[^]]*\]\s+)?(\S+)\s+(\S+)(\s|$)", line)
        if match and match[3] == release:
            return f"deb {match[1] or ''}{match[2]} {suite} main"
    return None


def main():
    suite = sys.argv[1]
    release = suite.removesuffix("-backports")
    apt = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else "/etc/apt")
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    for file in files:
        parse = {".sources": from_deb822, ".list": from_one_line}.get(file.suffix)
        entry = parse(file.read_text(), release, suite) if parse and file.is_file() else None
        if entry:
            print(file.suffix[1:], entry, sep="\n")
            return 0
    print(f"no enabled source of {release} in {apt}/sources.list or {apt}/sources.list.d", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
