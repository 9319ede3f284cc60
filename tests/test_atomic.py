import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from vibe_rl.atomic import write_atomically


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "file"
    contents = [b"a" * 100_000, b"b" * 50_000]
    write_atomically(path, contents[0])

    def write_often(content):
        for _ in range(50):
            write_atomically(path, content)

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write_often, content) for content in contents]
        while not all(writer.done() for writer in writers):
            assert path.read_bytes() in contents
        for writer in writers:
            writer.result()
    assert names_in(tmp_path) == ["file"]


def test_a_write_that_fails_leaves_the_file_before_and_nothing_else(tmp_path, monkeypatch):
    def full(_):
        raise OSError("disk full")

    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


def test_the_umask_says_who_may_read_it(tmp_path):
    path = tmp_path / "file"
    before = os.umask(0o022)
    try:
        write_atomically(path, b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
