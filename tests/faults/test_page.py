"""The manual's page *What it survives* names tests that exist."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "survives.md"
TESTS = {path.name: path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py")}


def test_each_line_of_the_page_names_tests_that_exist():
    promises, _, _ = PAGE.read_text().partition("## Where the limits are")
    rows = [line for line in promises.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if "shown by" not in row and "---" not in row]
    assert len(rows) > 30
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row.split("|")[-2])
        assert named, row
        for file, test in named:
            assert f"def {test}(" in TESTS[file], test


def test_each_file_of_these_tests_is_named_on_the_page():
    page = PAGE.read_text()
    for file in Path(__file__).parent.glob("test_*.py"):
        assert file.name in page or file == Path(__file__), file.name
