"""Every option of the four scripts as tables of Markdown, for docs/options.md.

python -m metric_learning.config.tables writes the page; a test fails where it is not what the code says.
"""

import re
import sys
import textwrap
import typing
from dataclasses import Field
from typing import Any

from metric_learning.checks import UserError
from metric_learning.config.base import RESUMABLE, Options, options
from metric_learning.config.pair import PairOptions
from metric_learning.config.parsing import COMMANDS, value_names
from metric_learning.config.recipes import CLASSIFY, TRIPLETS
from metric_learning.config.training import TrainOptions

PAGE = "docs/options.md"
INTRO = """\
# Options

Every option of the four scripts. `python -m metric_learning.config.tables` makes this page from the code; don't edit it
by hand. `python train_elem.py --help` says the same of one script.

- Options are typed `--name=value` or `--name value`. Booleans are `True` or `False` (or 1 and 0); the
  bare name turns on what is off by default.
- A name that does not exist, a value that can't be and an option that has no meaning beside the others are refused in
  one line, before anything else happens. Not so the settings of other losses than `--loss_name`'s: scripts may type
  them all, and a line says which have no effect.
- *resume*: what may be typed anew with `--checkpoint=<run>`; a resumed run keeps all others: [runs.md](runs.md#resume).
- Where a default is in brackets, it is found out when the script runs.
- An option of a later table stands above the one of the same name in an earlier table.
"""
CHANGED = """\
## Defaults that the data or the task changes

Each gives way to what is typed; `--lr_steps`, if typed, keep `--lr_strategy=piecewise_decay`.
"""


def page() -> str:
    """The whole page."""
    sections = [_section(commands, items) for commands, items in _grouped().items()]
    recipes = [
        _recipe(f"{kind.command}.py with no data given", _about_demo(kind), kind.demo) for kind in COMMANDS if kind.demo
    ]
    classify = _recipe("train_elem.py with --task=classify", "A small network and few passes.", CLASSIFY)
    return "\n".join([INTRO, *sections, CHANGED, *recipes, classify])


def _grouped() -> dict[tuple[str, ...], dict[str, "Field[Any]"]]:
    """Options by the commands that have them, those of more commands first, each where it is declared."""
    declared: dict[type[Options], tuple[str, ...]] = {}
    for kind in COMMANDS:
        for part in reversed(kind.__mro__):
            if issubclass(part, Options):
                declared[part] = (*declared.get(part, ()), kind.command)
    found: dict[tuple[str, ...], dict[str, Field[Any]]] = {}
    for part, commands in sorted(declared.items(), key=lambda item: -len(item[1])):
        items = {item.name: item for item in options(part) if item.name in part.__annotations__}
        if items:
            found.setdefault(commands, {}).update(items)
    return found


def _section(commands: tuple[str, ...], items: dict[str, "Field[Any]"]) -> str:
    names = [f"{name}.py" for name in commands]
    head = "All four scripts" if len(names) == len(COMMANDS) else " and ".join(names)
    kind = next(kind for kind in COMMANDS if kind.command == commands[0])
    trains = all(issubclass(kind, TrainOptions) for kind in COMMANDS if kind.command in commands)
    resumes = trains or len(names) == len(COMMANDS)
    hints = typing.get_type_hints(kind)
    rows = [
        f"| option | value | default | what |{' resume |' if resumes else ''}",
        f"|---|---|---|---|{'---|' if resumes else ''}",
    ]
    for item in items.values():
        default, text = _default_and_text(item)
        cells = [f"`--{item.name}`", value_names(hints[item.name]), default, text]
        if resumes:  # the data may have been moved
            cells.append("yes" if item.metadata[RESUMABLE] or item.name == "data_dir" else "")
        rows.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return f"## {head}\n\n" + "\n".join(rows) + "\n"


def _default_and_text(item: "Field[Any]") -> tuple[str, str]:
    """What the default is, and what the option means, as two cells."""
    text = item.metadata["help"]
    default = _shown(item.default)
    if not default and (bracket := re.fullmatch(r"(.*) \[(.+)\]", text, flags=re.S)):
        text, default = bracket[1], f"[{bracket[2]}]"
    if item.metadata["choices"]:
        text += "; one of " + ", ".join(f"`{choice}`" for choice in item.metadata["choices"])
    if item.metadata["retired"]:
        text += f": {item.metadata['retired']}"
    if also := item.metadata.get("also"):  # other names that it may be typed by
        text += "; also " + ", ".join(f"`--{name}`" for name in also)
    return default.replace("|", "\\|"), text.replace("|", "\\|").replace("<", "\\<")


def _shown(value: Any) -> str:
    if value is None or value == "":
        return ""
    return f"`{value:.4g}`" if isinstance(value, float) else f"`{value}`"


def _about_demo(kind: type[Options]) -> str:
    given = f" With `--loss_name=triplet` and `--mining=given`, the defaults, {TRIPLETS} pictures a step."
    return f"The demo faces, small enough for two cores.{given if kind is PairOptions else ''}"


def _recipe(head: str, what: str, values: dict[str, Any]) -> str:
    typed = " ".join(f"--{name}={_shown(value).strip('`')}" for name, value in values.items())
    lines = "\n".join(textwrap.wrap(typed, 110, break_on_hyphens=False))
    return f"### {head}\n\n{what}\n\n```\n{lines}\n```\n"


def main(arguments: list[str]) -> int:
    """Write the page to docs/options.md, or to the path that is given."""
    from metric_learning.files import atomic_write  # needs NumPy, which --help does without

    try:
        if len(arguments) > 1 or any(word.startswith("-") for word in arguments):
            raise UserError(f"Usage: python -m metric_learning.config.tables [PAGE]; the page is {PAGE} by default.")
        atomic_write(arguments[0] if arguments else PAGE, page())
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
