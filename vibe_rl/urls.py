"""Telling URLs from paths: what writes to the local disk has to refuse them."""

import os
import re


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether it is a URL, such as `gs://bucket/runs`, which as a path would be a local one."""
    # A `Path` made of a URL has lost one slash: gs:/bucket.
    return re.match("[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(path)) is not None
