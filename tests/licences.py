# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
The licence of every package that ours brings along, as the packages themselves state it; from the environment that it
runs in, without a network:

    python -m tests.licences

It ends with 1 if a licence is not one of those below. `make licences` runs it.
"""

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement


PACKAGE = "modeling-denseclip"
EXTRAS = ("train", "logs", "export", "plot", "lora", "web")  # what users install; the rest is for development
# SPDX identifiers that ask for no more than that their notice is kept.
PERMISSIVE = {
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0"),
    *("CNRI-Python", "HPND", "ISC", "MIT", "MIT-CMU", "PSF-2.0", "Unlicense", "Zlib"),
}
# Taken with another licence, and why that is no trouble: nothing of them is copied or changed here.
EXCEPTIONS = {
    "certifi": ("MPL-2.0", "a list of certificates, which `requests` reads"),
    "orjson": ("MPL-2.0", "parts of it; Gradio imports it"),
    "tqdm": ("MPL-2.0", "parts of it; progress bars, which are imported"),
}
# Older ways to say it: the field License, and where that is no name, the classifiers.
NAMES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License v2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "FreeBSD": "BSD-2-Clause",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def find_required(name: str, extras: tuple[str, ...]) -> dict[str, Distribution | None]:
    """What `name[extras]` brings along, by name; `None` for what is not installed."""
    found, seen, queue = {}, set(), [(normalize(name), extras)]
    while queue:
        name, extras = item = queue.pop()
        if item in seen:
            continue
        seen.add(item)
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            found[name] = None
            continue
        for line in found[name].requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            ):
                queue.append((normalize(requirement.name), tuple(sorted(requirement.extras))))
    return found


def read_licence(package: Distribution) -> str:
    """An SPDX expression, or what the package says instead."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return expression
    field = (metadata.get("License") or "").strip()
    if field in NAMES or set(re.split(" AND | OR ", field)) <= PERMISSIVE | {"MPL-2.0"}:
        return NAMES.get(field, field)
    classifiers = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or [] if "License ::" in line]
    return " AND ".join(sorted(NAMES.get(name, name) for name in classifiers)) or field.partition("\n")[0]


def is_allowed(name: str, licence: str) -> bool:
    """
    One of the alternatives is permissive, apart from the exception of the package. Of an expression with brackets all
    that it names has to be.
    """
    allowed = PERMISSIVE | {EXCEPTIONS[name][0]} if name in EXCEPTIONS else PERMISSIVE
    choices = [licence] if "(" in licence else licence.split(" OR ")
    return any({part.strip("()") for part in re.split(" AND | OR ", choice)} <= allowed for choice in choices)


def main() -> int:
    required, optional = find_required(PACKAGE, ()), find_required(PACKAGE, EXTRAS)
    wrong, absent = [], []
    print(f"{'package':26} {'version':18} {'for':8} licence")
    for name, package in sorted(optional.items()):
        if package is None:
            absent.append(name)
            continue
        licence = read_licence(package)
        remark = ""
        if not is_allowed(name, licence):
            wrong.append(name)
            remark = "   <- not among the allowed ones"
        elif name in EXCEPTIONS:
            remark = f"   <- exception: {EXCEPTIONS[name][1]}"
        print(f"{name:26} {package.version:18} {'all' if name in required else 'an extra':8} {licence}{remark}")
    if absent:
        print(f"Not installed here, so not looked at: {', '.join(absent)} and what they bring.")
    if wrong:
        print(f"Not allowed: {', '.join(wrong)}. Do without, or say in EXCEPTIONS why it may be.", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
