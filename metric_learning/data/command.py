"""The command lines of the data tools: options typed --name=value; what is wrong is one line and exit status 2."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from metric_learning import stopping
from metric_learning.checks import UserError, plain_line, suggestion


class Parser(argparse.ArgumentParser):
    """argparse, but no option may be shortened, and what is wrong is a UserError of one line."""

    def __init__(self, tool: str, purpose: str) -> None:
        name = f"python -m metric_learning.data.{tool}"
        super().__init__(prog=name, usage=f"{name} [--option=value ...]", description=purpose, allow_abbrev=False)

    def parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        typed = list(sys.argv[1:] if arguments is None else arguments)
        # Before argparse looks: it would only complain that the option which was misspelt is missing.
        for name in (word.split("=")[0] for word in typed if word.startswith("--")):
            if name not in self._option_string_actions:
                near = suggestion(name, (known for known in self._option_string_actions if known.startswith("--")))
                raise UserError(f"Unknown option {name}.{near} See {self.prog} --help.")
        return self.parse_args(typed)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')}. See {self.prog} --help.")


def boolean(text: str) -> bool:
    """True, False, 1, 0, yes, no, on, off, in any case."""
    value = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in value:
        raise argparse.ArgumentTypeError(f"must be True or False; got {text!r}")
    return value[text.lower()]


def run(parser: Parser, job: Callable[[Any], None], arguments: Sequence[str] | None) -> int:
    """Parse, do the job; the exit status: 0, 2 for what the user can mend, 141 for a closed pipe.

    130 after Ctrl-C, 143 after SIGTERM.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may be no text at all
    try:
        with stopping.on_sigterm():
            job(parser.parse(arguments))
            sys.stdout.flush()
    except UserError as error:
        return _refuse(parser, str(error))
    except KeyboardInterrupt as stop:
        ended, status = stopping.status_of(stop)
        stopping.end_quietly()
        print(f"{parser.prog}: {ended}.", file=sys.stderr)
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains of it again at its end
        return 141
    except OSError as error:
        return _refuse(parser, f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.")
    return 0


def _refuse(parser: Parser, message: str) -> int:
    print(f"{parser.prog}: {plain_line(message)}", file=sys.stderr)
    return 2
