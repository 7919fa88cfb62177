"""README's figures are those of docs/figures.md."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Row = dict[str, str]  # by the column's heading

if not (ROOT / "README.md").exists():
    pytest.skip("needs the clone's documents", allow_module_level=True)


def tables(text: str) -> Iterator[list[Row]]:
    for found in re.finditer(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in found[0].splitlines())
        yield [dict(zip(head, row, strict=True)) for row in rows]


def marked() -> dict[str, list[Row]]:
    parts = re.split(r"<!-- figures: (\w+) -->", (ROOT / "README.md").read_text(encoding="utf-8"))
    return {name: next(tables(text)) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize("name", marked())
def test_readme_shows_what_was_measured(name: str) -> None:
    ours = marked()[name]
    measured = list(tables((ROOT / "docs" / "figures.md").read_text(encoding="utf-8")))
    columns = ours[0].keys()
    assert ours in [[{key: row.get(key, "") for key in columns} for row in table] for table in measured]
