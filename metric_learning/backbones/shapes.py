"""What a picture's size does to a network: which sizes it takes, and how large its last map is."""

from metric_learning.checks import UserError

Shape = tuple[int, int, int]  # channels, height, width


def check_sides(model: str, shape: Shape, least: int, multiple: int = 1) -> None:
    """A UserError unless height and width are at least `least` pixels and multiples of `multiple`."""
    sides = shape[1:]
    if min(sides) >= least and not any(side % multiple for side in sides):
        return
    rule = f"multiples of {multiple}" if multiple > 1 else f"at least {least}"
    nearest = [max(least, round(side / multiple) * multiple) for side in sides]
    raise UserError(
        f"--model={model} needs pictures whose height and width are {rule}; got {sides[0]}x{sides[1]}. "
        f"Take --image_shape={shape[0]},{nearest[0]},{nearest[1]} or another --model."
    )


def halved(sides: tuple[int, ...], times: int) -> tuple[int, int]:
    """(height, width) of a map behind `times` 3x3 convolutions of stride 2 with padding 1: halves, rounded up."""
    for _ in range(times):
        sides = tuple((side + 1) // 2 for side in sides)
    return sides[0], sides[1]
