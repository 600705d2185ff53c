# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Packages of npm: fetched by its own client, at the version and with the checksum of a package-lock.json."""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path


SECONDS = 600  # that a download may take


def locked_version(lock: Path, name: str) -> tuple[str, str]:
    """Version and checksum, such as `sha512-...`, of a package in a package-lock.json."""
    entry = json.loads(lock.read_text(encoding="utf-8"))["packages"][f"node_modules/{name}"]
    return entry["version"], entry["integrity"]


def find_npm() -> str:
    """
    The program.

    Raises:
        ValueError: where it is not installed.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(
            "npm is not installed, by which the scripts of this page are fetched. Install Node.js 20 or newer, which"
            " brings it: https://nodejs.org, or a package of the system such as Debian's npm."
        )
    return npm


def fetch_package(lock: Path, name: str, folder: Path) -> Path:
    """
    Download the archive of a package, from npm's own cache where it is there already; no script of it is run.

    Raises:
        ValueError: where npm is not installed, or does not get it.
    """
    npm = find_npm()
    version, integrity = locked_version(lock, name)
    command = [npm, "pack", f"{name}@{version}", "--ignore-scripts", "--prefer-offline", "--json"]
    try:
        done = subprocess.run(
            [*command, "--pack-destination", str(folder)], cwd=folder, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"npm did not get {name} {version} in {SECONDS} s: try again.") from error
    archives = list(folder.glob("*.tgz"))
    if done.returncode != 0 or len(archives) != 1:
        lines = [line.removeprefix("npm error").strip() for line in done.stderr.splitlines() if "npm error" in line]
        reason = " ".join(line for line in lines if line and "complete log" not in line) or done.stderr[-300:]
        raise ValueError(
            f"npm could not get {name} {version}: {reason[:400]} It needs its registry once (`npm ping` tells whether"
            f" it is reached, `npm config get registry` where it is); from then on it has the package in its cache."
        )
    check_integrity(archives[0], integrity)
    return archives[0]


def check_integrity(archive: Path, integrity: str) -> None:
    """
    Raises:
        ValueError: for an archive that is another one than the lock file's.
    """
    algorithm, _, expected = integrity.partition("-")
    found = base64.b64encode(hashlib.new(algorithm, archive.read_bytes()).digest()).decode()
    if found != expected:
        raise ValueError(
            f"{archive.name}, as npm got it, is not the archive that package-lock.json names: its {algorithm} is"
            f" {found}, and should be {expected}. Look at where npm gets it from: `npm config get registry`."
        )


def unpack(archive: Path, names: Sequence[str], folder: Path) -> None:
    """Write some files of an archive into a folder, without the folders that they lie in there."""
    with tarfile.open(archive) as packed:
        for name in names:
            with packed.extractfile(f"package/{name}") as source:
                (folder / Path(name).name).write_bytes(source.read())
