# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Known vulnerabilities of what is installed here, by `pip-audit`:

    python -m tests.audit --path .venv/lib/python3.12/site-packages

It needs a service of vulnerabilities. pip-audit ends well even if that knew none of the packages, which is what a
mirror of an index answers. So this counts the packages that were looked up, and says so in words where none was: it
was not run. It ends with 1 if a vulnerability is known. `make audit` runs it.
"""

import json
import subprocess
import sys


def summarize(report: str, log: str) -> tuple[int, str]:
    """
    Args:
        report (`str`): what `pip-audit --format json` wrote; empty if it reached nothing.
        log (`str`): what it said beside.

    Returns:
        The exit status, and what to print.
    """
    packages = json.loads(report)["dependencies"] if report.strip() else []
    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:
        reason = packages[0]["skip_reason"] if packages else (log.strip().splitlines() or ["no answer"])[-1]
        return 0, f"AUDIT NOT RUN: no service of vulnerabilities answers here. pip-audit says: {reason}"
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or '?'}"
        for package in audited
        for found in package["vulns"]
    ]
    status = 1 if lines else 0
    lines.append(f"{len(audited)} packages looked up, {len(lines)} vulnerabilities known.")
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if skipped:
        lines.append(f"Not looked up: {', '.join(skipped)}.")
    return status, "\n".join(lines)


def main() -> int:
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", *sys.argv[1:]]
    result = subprocess.run(command, capture_output=True, text=True)
    status, text = summarize(result.stdout, result.stderr)
    print(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
