"""One process at a time trains in a run's folder, or changes a gallery."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metric_learning.checks import UserError

NAME = ".lock"


@contextmanager
def held(
    folder: Path, name: str = NAME, doing: str = "training in", harm: str = "overwrite each other's checkpoints"
) -> Iterator[None]:
    """Inside, this process alone holds the folder. UserError, with the number of the other process, where one does.

    name: of the lock's file in the folder. doing, harm: what the other process does, and what two would do, in words.

    The system lets go when the process ends, however it ends. A lock of the process (POSIX), not of the open file: that
    one would pass to the loader's workers, which may outlive a killed training. Where there are no locks (Windows, some
    network file systems), nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        file = open(folder / name, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"Can't write {folder / name}: {error.strerror}. Make the folder writable.") from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            raise UserError(
                f"Process {file.read().strip() or 'unknown'} is {doing} {folder} now; two would {harm}. "
                "Wait for its end or stop it, then try again."
            ) from error
        except OSError:
            yield
            return
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
