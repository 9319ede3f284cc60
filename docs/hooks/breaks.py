"""Where a long name in a table may go on in the next line: after a `::`, a `/` or a `_`."""

from __future__ import annotations

import re
from typing import Any

_CELL = re.compile(r"<td\b.*?</td>", re.DOTALL)
_CODE = re.compile(r"(?<=<code>)[^<]+")
# As many characters as a column of three has on a phone.
_LONG = re.compile(r"\S{22,}")
_BREAK = re.compile(r"::|/(?=\w)|(?<=[^\W_])(?<!\btest)_(?=[^\W_])")


def on_page_content(html: str, **_: Any) -> str:
    """Called by MkDocs with each page."""
    return _CELL.sub(lambda cell: _CODE.sub(_each_long_word, cell[0]), html)


def _each_long_word(code: re.Match[str]) -> str:
    return _LONG.sub(lambda word: _BREAK.sub(r"\g<0><wbr>", word[0]), code[0])
