# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""A browser for the page: Debian's Chromium where it is installed, or else Playwright's own."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright


ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@contextmanager
def open_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)


def upload(page: Page, file: Path, state: str = "shown") -> None:
    """Upload a file, and wait for the classes in it, or with `state="error"` for what is said instead."""
    page.set_input_files("#upload input[type=file]", file)
    # Attached, since another tab may be open.
    page.locator(f"#classes .viewer[data-state={state}]").wait_for(state="attached")
