"""Links of the pages lead somewhere, and names that they mention exist."""

import re
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for folder in (".", "docs", "benchmarks", "configuration", "model_cards", "model_cards/space")
    for path in (ROOT / folder).glob("*.md")
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors_of(page: Path) -> set[str]:
    """As GitHub makes them of titles."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def without_code(page: Path) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for link in LINK.findall(without_code(page)):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors_of(target), f"{link}: no such title"


def test_every_page_is_in_the_readme():
    links = {(ROOT / link.partition("#")[0]).resolve() for link in LINK.findall(without_code(ROOT / "README.md"))}
    missing = {path for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".ipynb")} - links
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_modules_that_are_run_exist(page):
    for package, verb in re.findall(r"python -m (training|benchmarks)\.(\w+)", page.read_text(encoding="utf-8")):
        assert (ROOT / package / f"{verb}.py").is_file(), f"python -m {package}.{verb}"
