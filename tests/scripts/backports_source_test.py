#!/usr/bin/env python3
# contract: scripts/backports_source.py keeps mirror, key and options of the machine's own source, in both formats.
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "backports_source.py"


def entry(files):
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            file = pathlib.Path(root, path)
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        result = subprocess.run([sys.executable, SCRIPT, "bookworm-backports", root], capture_output=True, text=True)
        return result.stdout if result.returncode == 0 else None


class BackportsSource(unittest.TestCase):
    def test_a_one_line_source_keeps_its_options_and_mirror(self):
        text = "# deb http://old.test/ bookworm main\ndeb-src http://s.test/ bookworm main\n" \
               "deb [arch=amd64 signed-by=/k.gpg] http://m.test/debian bookworm main contrib\n"
        self.assertEqual(entry({"sources.list": text}),
                         "list\ndeb [arch=amd64 signed-by=/k.gpg] http://m.test/debian bookworm-backports main\n")

    def test_a_deb822_source_keeps_its_key_also_when_it_stands_inline(self):
        text = "Types: deb\nEnabled: no\nURIs: http://off.test/\nSuites: bookworm\n\n" \
               "# a comment\nTypes: deb deb-src\nURIs: http://m.test/debian\nSuites: bookworm bookworm-updates\n" \
               "Components: main\nSigned-By:\n -----BEGIN\n .\n abc\n"
        self.assertEqual(entry({"sources.list": "", "sources.list.d/debian.sources": text}),
                         "sources\nTypes: deb\nURIs: http://m.test/debian\nSuites: bookworm-backports\n"
                         "Components: main\nSigned-By:\n -----BEGIN\n .\n abc\n")

    def test_only_the_suite_of_the_release_itself_counts(self):
        text = "deb http://security.test/ bookworm-security main\ndeb http://m.test/ trixie main\n"
        self.assertIsNone(entry({"sources.list": text}))

    def test_files_that_apt_does_not_read_are_left_out(self):
        text = "deb http://m.test/ bookworm main\n"
        self.assertIsNone(entry({"sources.list.d/x.list.disabled": text}))


if __name__ == "__main__":
    unittest.main()
