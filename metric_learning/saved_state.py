"""What a checkpoint says of its training beside its arrays: steps and scores; a stranger may have edited it."""

import math
from pathlib import Path
from typing import Any

from metric_learning.checks import UserError
from metric_learning.files import read_metadata

MOST_PROCESSES = 1 << 16


def read_state(path: Path) -> dict[str, Any]:
    """What a checkpoint says of its training, as `State.save` writes it; a UserError for anything else."""
    saved = read_metadata(path).get("state")
    if not (isinstance(saved, dict) and {"step", "best"} <= saved.keys()):
        raise UserError(
            f"{path} holds weights but no training state. Give it as --pretrained_model, or name a checkpoint."
        )
    counts = {"step": saved["step"], "processes": saved.get("processes", 1), "averaged": saved.get("averaged", 0)}
    lists = {name: saved.get(name, []) for name in ("best", "scores", "scale")}
    names = saved.get("sharded", [])
    fits = all(type(count) is int and 0 <= count < 1 << 53 for count in counts.values())
    fits = fits and 1 <= counts["processes"] <= MOST_PROCESSES
    fits = fits and all(isinstance(part, list) and all(map(_is_number, part)) for part in lists.values())
    fits = fits and len(lists["scale"]) in (0, 2) and all(0 <= value < math.inf for value in lists["scale"])
    fits = fits and isinstance(names, list)
    if not fits or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} holds no training state that this version knows. Was it edited?")
    numbers = {name: [float(value) for value in part] for name, part in lists.items()}
    return {**counts, **numbers, "sharded": names}


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 1 << 53)
