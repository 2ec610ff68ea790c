"""The four commands where only the package is installed: python -m metric_learning train_elem --loss_name=arcmargin."""

import sys
from collections.abc import Sequence

from metric_learning import cli
from metric_learning.checks import suggestion
from metric_learning.config.parsing import COMMANDS


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line, the name of a command first; returns the exit status."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    kinds = {kind.command: kind for kind in COMMANDS}
    if typed and typed[0] in kinds:
        return cli.main(kinds[typed[0]], typed[1:])
    if typed and typed[0] not in ("-h", "--help"):
        print(f"metric_learning: there is no command {typed[0]!r}.{suggestion(typed[0], kinds)}", file=sys.stderr)
        return 2
    print("usage: python -m metric_learning COMMAND [--option=value ...]; each has --help\n")
    print("\n".join(f"  {name:12}{kind.purpose}" for name, kind in kinds.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
