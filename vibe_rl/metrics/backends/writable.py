"""The check of a backend's directory, before anything is begun in it."""

import tempfile
from pathlib import Path


def writable(directory: Path, argument: str) -> Path:
    """Make a directory if it is missing, and make sure that files can be made in it.

    Args:
        directory: The directory.
        argument: What the error calls it.

    Returns:
        The directory.

    Raises:
        OSError: If it can't be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        message = f"{argument} {str(directory)!r} can't be written: {error.strerror}"
        raise OSError(error.errno, message) from error
    return directory
