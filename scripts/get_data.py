#!/usr/bin/env python3
"""Fetches data sets into a data root, for machines with a network. `kvsweep data get` calls it with a plan; by hand:

    kvsweep data plan gsm8k | scripts/get_data.py --root DIR [--endpoint URL]
    scripts/get_data.py --root DIR --hub OWNER/NAME --file PATH [--as FOLDER/NAME] [--revision REV] [--sha256 HEX]

A plan's files come at their commit from the repository that is named in it: from URL/REPOSITORY/REVISION/PATH with
--endpoint or $KVSWEEP_DATA_ENDPOINT (a mirror that serves files so), else with git from $KVSWEEP_GIT_BASE/REPOSITORY.
--hub takes a file of a data set of the Hugging Face hub: with huggingface_hub where that is installed, else from
$HF_ENDPOINT (or --endpoint).

A file is written under another name and moved into place when its SHA-256 is right; a transfer that broke off goes on.
A file that is there with another hash is left alone and reported. Exit 0: all files are there; 1: not; 2: bad usage.
"""
import argparse
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request

BLOCK = 1 << 20


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def download(url, part):
    """Into `part`, going on behind what it holds."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing behind it: it was whole
            return
        raise
    with answer, open(part, "ab" if answer.status == 206 else "wb") as file:
        whole = file.tell() + int(answer.headers.get("Content-Length") or 0)
        shutil.copyfileobj(answer, file, BLOCK)
        if file.tell() < whole:
            raise OSError(f"broke off at {file.tell()} of {whole} bytes; the same command goes on from there")


def put(part, target, expected, convert):
    """Moves a whole download into place, or throws it away."""
    if convert == "lf":
        part.write_bytes(part.read_bytes().replace(b"\r\n", b"\n"))
    got = sha256_of(part)
    if expected and got != expected:
        part.unlink()
        raise ValueError(f"SHA-256 {got} came, {expected} was expected; nothing was kept")
    os.replace(part, target)


class Mirror:
    """Files of a repository by URL."""

    def __init__(self, endpoint, entry):
        self.base = "/".join([endpoint.rstrip("/"), entry["repository"], entry["revision"]])

    def fetch(self, upstream, part):
        download(f"{self.base}/{urllib.parse.quote(upstream)}", part)


class GitCommit:
    """Files of one commit, with git."""

    def __init__(self, base, entry, stack):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="get_data_"))
        stack.append(self.folder)
        self.git("init", "--quiet")
        self.git("fetch", "--quiet", "--depth", "1", f"{base.rstrip('/')}/{entry['repository']}", entry["revision"])

    def git(self, *arguments, **options):
        return subprocess.run(["git", "-C", str(self.folder), *arguments], check=True, **options)

    def fetch(self, upstream, part):
        with open(part, "wb") as file:
            self.git("show", f"FETCH_HEAD:{upstream}", stdout=file)


def missing_files(entry, root):
    """Files of a set that have to be fetched, and problems with those that are there."""
    missing, problems = [], []
    for file in entry["files"]:
        target = root / file["path"]
        if not target.exists():
            missing.append(file)
        elif file["sha256"] and sha256_of(target) != file["sha256"]:
            problems.append(f"{target}: is there with another SHA-256 than {file['sha256']}; move it away to fetch it")
    return missing, problems


def fetch_set(entry, root, source):
    missing, problems = missing_files(entry, root)
    client = source(entry) if missing else None
    for file in missing:
        target = root / file["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name("." + target.name + ".part")
        try:
            client.fetch(file["upstream"], part)
            put(part, target, file["sha256"], file.get("convert"))
            print(target)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            problems.append(f"{target}: {error}")
    return problems


def hub_entry(arguments):
    path = arguments.as_ or f"{arguments.hub.split('/')[-1]}/{arguments.file.split('/')[-1]}"
    return {"folder": path.split("/")[0], "repository": arguments.hub, "revision": arguments.revision,
            "files": [{"path": path, "upstream": arguments.file, "sha256": arguments.sha256}]}


class Hub:
    def __init__(self, endpoint, entry):
        self.endpoint, self.entry = endpoint, entry

    def fetch(self, upstream, part):
        repository, revision = self.entry["repository"], self.entry["revision"]
        try:
            import huggingface_hub
        except ImportError:
            if not self.endpoint:
                raise ValueError("install huggingface_hub, or set HF_ENDPOINT or --endpoint") from None
            path = urllib.parse.quote(upstream)
            download(f"{self.endpoint.rstrip('/')}/datasets/{repository}/resolve/{revision}/{path}", part)
            return
        cached = huggingface_hub.hf_hub_download(repository, upstream, repo_type="dataset", revision=revision,
                                                 endpoint=self.endpoint)
        shutil.copyfile(cached, part)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", required=True, type=pathlib.Path, help="data root that files are written to")
    parser.add_argument("--endpoint", help="mirror; see the head of this file")
    parser.add_argument("--hub", help="data set of the hub, OWNER/NAME")
    parser.add_argument("--file", help="with --hub: path in the data set")
    parser.add_argument("--as", dest="as_", help="with --hub: path below the root")
    parser.add_argument("--revision", default="main")
    parser.add_argument("--sha256", default="", help="with --hub: what is expected")
    arguments = parser.parse_args()
    folders = []
    if arguments.hub:
        if not arguments.file:
            parser.error("--hub needs --file")
        plan = [hub_entry(arguments)]
        endpoint = arguments.endpoint or os.environ.get("HF_ENDPOINT")
        source = lambda entry: Hub(endpoint, entry)
    else:
        plan = json.load(sys.stdin)
        endpoint = arguments.endpoint or os.environ.get("KVSWEEP_DATA_ENDPOINT")
        base = os.environ.get("KVSWEEP_GIT_BASE")
        if not endpoint and not base:
            parser.error("name a mirror with --endpoint or KVSWEEP_DATA_ENDPOINT, or where git finds the repositories "
                         "with KVSWEEP_GIT_BASE")
        source = lambda entry: Mirror(endpoint, entry) if endpoint else GitCommit(base, entry, folders)
    problems = []
    try:
        for entry in plan:
            try:
                problems += fetch_set(entry, arguments.root, source)
            except subprocess.CalledProcessError as error:
                problems.append(f"{entry['folder']}: {error}")
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    for problem in problems:
        print(f"get_data.py: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
