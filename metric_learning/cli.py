"""From a command line to a stage: what every script calls."""

import contextlib
import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO, TypeVar

from metric_learning import runtime, stopping
from metric_learning.checks import UserError, plain_line
from metric_learning.config import Options, TrainOptions, parse

AnyOptions = TypeVar("AnyOptions", bound=Options)


def main(kind: type[AnyOptions], arguments: list[str] | None = None) -> int:
    """Parse, set the machine up, import Paddle, run the stage named like the command.

    The exit status: 0; 1 where another process of the launcher has stopped; 2 for what the user can mend; 130 after
    Ctrl-C, 143 after SIGTERM; 141 where nobody reads the output any more.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may be no text at all
    try:
        with stopping.on_sigterm():
            config = parse(kind, arguments)
            runtime.prepare(*_machine(config))
            getattr(_stages(), kind.command)(config)
            sys.stdout.flush()
    except UserError as error:
        return _refuse(kind, str(error))
    except MemoryError:
        return _refuse(kind, "out of memory. Use smaller batches, pictures or networks.")
    except KeyboardInterrupt as stop:
        said = str(stop) if "\n" not in str(stop) else ""  # Paddle's tracing writes pages into it
        ended, status = stopping.status_of(stop)
        stopping.end_quietly()
        print(f"{kind.command}.py: {ended}. {said}".rstrip(), file=sys.stderr)
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains of it again at its end
        return 141  # what a shell says of a program that wrote to a closed pipe
    except RuntimeError as error:
        if not _of_connection(error):
            raise
        print(f"{kind.command}.py: the connection to the other processes is lost; one has stopped.", file=sys.stderr)
        return 1
    except OSError as error:  # the disk or the terminal failed where no one was prepared for it
        return _refuse(kind, f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.")
    return 0


def _machine(config: Options) -> tuple[int, bool]:
    """Threads and oneDNN, which Paddle's import must find; a resumed run keeps its own, for the same bits."""
    told = {"threads": config.threads, "onednn": getattr(config, "onednn", True)}
    place = Path(config.checkpoint) if isinstance(config, TrainOptions) and config.checkpoint else None
    for folder in (place, *place.parents[:2]) if place else ():
        with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
            saved = json.loads((folder / "config.json").read_text())
            told |= {
                name: saved[name]
                for name in told
                if name not in config.typed and type(saved.get(name)) is type(told[name])
            }
            break
    return min(max(int(told["threads"]), 0), 1024), bool(told["onednn"])


def _of_connection(error: RuntimeError) -> bool:
    """Whether Gloo or NCCL says that another process of the launcher does not answer."""
    return bool(os.environ.get("PADDLE_TRAINERS_NUM")) and any(name in str(error).lower() for name in ("gloo", "nccl"))


def _refuse(kind: type[Options], message: str) -> int:
    print(f"{kind.command}.py: {plain_line(message)}", file=sys.stderr)
    return 2


def _stages() -> ModuleType:
    """The stages, which import Paddle."""
    before = sys.stderr
    sys.stderr = _Without(before, ("WARNING: OMP_NUM_THREADS set to", "PLEASE USE OMP_NUM_THREADS WISELY"))
    try:
        with stopping.later():
            return importlib.import_module("metric_learning.stages")
    except ImportError as error:
        raise UserError(f"Can't be imported: {error}. Install as the README says.") from error
    finally:
        sys.stderr = before


class _Without:
    """A stream that swallows what starts with one of `unwanted`: what Paddle's import prints, whatever is set.

    It stays in the loggers that are made while it stands in, so it goes on as the stream that it stands for.
    """

    def __init__(self, stream: TextIO, unwanted: tuple[str, ...]) -> None:
        self._stream, self._unwanted, self._dropped = stream, unwanted, False

    def write(self, said: str) -> int:
        end_of_dropped = self._dropped and said == "\n"  # print writes the end of its line by itself
        self._dropped = said.startswith(self._unwanted)
        return len(said) if self._dropped or end_of_dropped else self._stream.write(said)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
