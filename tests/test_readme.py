"""The two READMEs say the same: the same commands, files, flags and links, in two languages."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```.*?^```", flags=re.M | re.S)


def blocks(page: str) -> list[str]:
    """What a reader copies: code blocks without their comments."""
    return [re.sub(r" *#.*", "", block) for block in BLOCK.findall(page)]


def links(page: str) -> Counter[str]:
    """Where the page leads, but for the links of the two pages to each other."""
    return Counter(link for link in re.findall(r"\]\(([^)\s]+)\)", page) if not link.startswith("README"))


def codes(page: str) -> Counter[str]:
    """What stands in backquotes: flags, files, commands."""
    return Counter(re.findall(r"`([^`\n]+)`", BLOCK.sub("", page)))


def shape(page: str) -> list[str]:
    """What kind of line follows what: heads by level, points of a list, rows of a table."""
    return re.findall(r"^(#+ |- |\||!\[)", BLOCK.sub("", page), flags=re.M)


@pytest.mark.parametrize("part", [blocks, links, codes, shape])
def test_both_readmes_have_the_same(part) -> None:
    assert part(ENGLISH) == part(CHINESE)
    assert part(ENGLISH)


def test_each_readme_links_to_the_other_at_its_top() -> None:
    assert "(README.zh.md)" in ENGLISH[:200]
    assert "(README.md)" in CHINESE[:200]


def test_a_drift_is_seen() -> None:
    for old, new in (("--loss_name=eml ", "--loss_name=npairs "), ("docs/data.md", "docs/runs.md"), ("`--pairs`", "")):
        changed = CHINESE.replace(old, new)
        assert changed != CHINESE
        assert [part.__name__ for part in (blocks, links, codes) if part(changed) != part(CHINESE)]
