"""docs/options.md is what the code says."""

from pathlib import Path

from metric_learning.config import COMMANDS, options, tables

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_is_what_the_code_says() -> None:
    written = (ROOT / tables.PAGE).read_text(encoding="utf-8")
    assert written == tables.page(), "stale: run python -m metric_learning.config.tables"


def test_every_option_stands_in_a_table_of_its_command() -> None:
    sections = tables.page().split("\n## ")
    for kind in COMMANDS:
        own = "".join(part for part in sections if part.startswith("All four") or f"{kind.command}.py" in part[:40])
        for item in options(kind):
            assert f"| `--{item.name}` |" in own, f"{kind.command}.py --{item.name}"


def test_rows_have_as_many_cells_as_their_head() -> None:
    for table in tables.page().split("\n\n"):
        rows = [line.replace("\\|", "").count("|") for line in table.splitlines() if line.startswith("|")]
        assert len(set(rows)) <= 1, table[:200]


def test_main_writes_a_page_and_refuses_nonsense(tmp_path: Path, capsys) -> None:
    assert tables.main([str(tmp_path / "page.md")]) == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == tables.page()
    assert tables.main(["--help"]) == 2 and "Usage" in capsys.readouterr().err
