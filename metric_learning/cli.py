"""From a command line to a stage: what every script calls."""

import importlib
import sys
from typing import TypeVar

from metric_learning import runtime
from metric_learning.checks import UserError
from metric_learning.config import Options, parse

AnyOptions = TypeVar("AnyOptions", bound=Options)


def main(kind: type[AnyOptions], arguments: list[str] | None = None) -> int:
    """Parse, set the machine up, import Paddle, run the stage named like the command. The exit status: 0, 2 or 130."""
    try:
        config = parse(kind, arguments)
        runtime.prepare(config.threads, getattr(config, "onednn", False))
        stage = importlib.import_module("metric_learning.stages")  # Paddle is imported here
        getattr(stage, kind.command)(config)
    except UserError as error:
        print(f"{kind.command}.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"{kind.command}.py: interrupted. {stop}".rstrip(), file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    return 0
