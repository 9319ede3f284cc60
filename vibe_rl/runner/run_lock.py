"""One training at a time in a run's directory."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from vibe_rl.metrics.locks import unlock
from vibe_rl.processes import process_index
from vibe_rl.run_dir import RunDir


@contextmanager
def training_alone(run_dir: RunDir) -> Iterator[None]:
    """Keep every other training out of a run's directory, from before anything in it is touched.

    The lock is on a file of its own, `training.lock`: the metrics file may have several writers.
    It ends with the process that has it, however that ends, so the file may stay.

    Args:
        run_dir: The run's directory.

    Yields:
        Nothing; the lock is held meanwhile. In a job of several processes, the first one has it for
        all. Where files can't be locked, there is none.

    Raises:
        OSError: If another training has the lock.
    """
    if process_index() != 0:
        yield
        return
    with (run_dir.root / "training.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise OSError(
                    errno.EBUSY, "a training is under way there; end it first", str(run_dir.root)
                ) from error
        try:
            yield
        finally:
            unlock(file.fileno())
