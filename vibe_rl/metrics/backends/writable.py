"""The check of a backend's directory, before anything is begun in it."""

import os
import tempfile
from pathlib import Path

from vibe_rl.urls import is_url


def writable(directory: str | os.PathLike[str], argument: str) -> Path:
    """Make a directory if it is missing, and make sure that files can be made in it.

    Args:
        directory: The directory.
        argument: What the error calls it.

    Returns:
        The directory, whatever the working directory becomes.

    Raises:
        ValueError: If it is a URL.
        OSError: If it can't be written.
    """
    if is_url(directory):
        raise ValueError(
            f"{argument} is a local directory, not the URL {os.fspath(directory)!r}; write to a "
            "local disk, and copy the files from there"
        )
    directory = Path(directory).absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        message = f"{argument} {str(directory)!r} can't be written: {error.strerror}"
        raise OSError(error.errno, message) from error
    return directory
