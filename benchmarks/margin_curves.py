"""Draws what the margins do, from the toolkit's own code: docs/margins.png and docs/margin_boundaries.png.

python benchmarks/margin_curves.py --out docs

Curves: what stands in place of the true class's cosine, by the angle between a picture and its class centre. Boundaries
of two classes: by the angles to both centres, where a picture of the first class is content, where one of the second,
and where neither is. All without the scale. Margins that look at more than the angle are drawn at two ends of it.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import paddle
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from metric_learning.losses.margins import (
    AdaFace,
    AmSoftmax,
    ArcMargin,
    CurricularFace,
    MagFace,
    Margin,
    Softmax,
    SphereFace,
)
from metric_learning.plot import COLOURS

LENGTH = 20.0  # of an embedding whose length says nothing


def quiet(margin: Margin, **buffers: float) -> Margin:
    """The margin as it is when trained that far: in evaluation mode, its moving averages set."""
    margin.eval()
    for name, value in buffers.items():
        paddle.assign(paddle.full_like(getattr(margin, name), value), getattr(margin, name))
    return margin


def adaface(quality: float) -> tuple[Margin, float]:
    """AdaFace, and the length of an embedding of this quality (-1 bad, 1 good)."""
    margin = AdaFace(margin=0.4)
    return quiet(margin, mean=LENGTH, std=5.0), LENGTH + quality * 5.1 / margin.h


FIXED = {
    "softmax: no margin": (Softmax(), LENGTH),
    "sphereface, m = 1.35": (quiet(SphereFace(margin=1.35)), LENGTH),
    "amsoftmax, m = 0.35": (AmSoftmax(margin=0.35), LENGTH),
    "arcmargin, m = 0.5": (ArcMargin(margin=0.5), LENGTH),
}
LOOKING = {
    "adaface, a bad picture": adaface(-1.0),
    "adaface, a good picture": adaface(1.0),
    "magface, short: m = 0.45": (MagFace(), 10.0),
    "magface, long: m = 0.8": (MagFace(), 110.0),
}
CURRICULAR = {
    "curricularface, begin (t = 0)": (quiet(CurricularFace(margin=0.5), t=0.0), LENGTH),
    "curricularface, later (t = 0.6)": (quiet(CurricularFace(margin=0.5), t=0.6), LENGTH),
}


def logits(margin: Margin, length: float, own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of the true and of another class (N,) -> their logits over the scale (N,) each."""
    cosine = paddle.to_tensor(np.stack([own, other], axis=1).astype("float32"))
    norms = paddle.full([len(own)], length)
    found = margin(cosine, cosine[:, 0], norms)
    return found.true.numpy() / margin.scale, found.others.numpy()[:, 1] / margin.scale


def curves() -> Figure:
    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, sharey=True)
    degrees = np.linspace(0, 180, 361)
    cosine = np.cos(np.radians(degrees))
    for panel, shown in ((left, FIXED), (right, {**LOOKING, "softmax: no margin": FIXED["softmax: no margin"]})):
        for i, (name, (margin, length)) in enumerate(shown.items()):
            colour = "black" if isinstance(margin, Softmax) else COLOURS[(i if panel is left else i + 3) % 6]
            style = "--" if isinstance(margin, Softmax) else "-"
            panel.plot(degrees, logits(margin, length, cosine, cosine)[0], style, color=colour, label=name, linewidth=2)
        panel.set(xlabel="angle to the own class centre, degrees", xlim=(0, 180), ylim=(-2.1, 1.1))
        panel.set_xticks(range(0, 181, 30))
        panel.grid(alpha=0.3)
        panel.legend(loc="lower left", fontsize=9)
    left.set(ylabel="logit of the own class / scale", title="The same for every picture")
    right.set(title="By the picture: its quality or length")
    return figure


def boundaries() -> Figure:
    """Two rows of four squares: the first class in blue, the second in orange, between them nobody is content."""
    ada = {name: item for name, item in LOOKING.items() if name.startswith("adaface")}
    shown = {**FIXED, **CURRICULAR, **ada}
    figure = Figure(figsize=(11, 6.2), dpi=110, layout="constrained", facecolor="white")
    panels = figure.subplots(2, 4, sharex=True, sharey=True)
    degrees = np.linspace(0, 90, 361)
    one, two = (np.cos(np.radians(grid)).ravel() for grid in np.meshgrid(degrees, degrees))
    for panel, (name, (margin, length)) in zip(panels.ravel(), shown.items(), strict=True):
        content = [np.subtract(*logits(margin, length, *pair)).reshape(361, 361) for pair in ((one, two), (two, one))]
        for of_class, colour in zip(content, COLOURS[:2], strict=True):
            panel.contourf(degrees, degrees, of_class, levels=[0, 9], colors=[colour], alpha=0.45)
            panel.contour(degrees, degrees, of_class, levels=[0], colors=[colour], linewidths=1.5)
        panel.plot([0, 90], [0, 90], ":", color="black", linewidth=1)
        panel.set_title(name, fontsize=10)
        panel.set(aspect="equal", xticks=range(0, 91, 30), yticks=range(0, 91, 30))
    panels[0, 0].text(18, 62, "class 1", ha="center")
    panels[0, 0].text(62, 18, "class 2", ha="center")
    figure.supxlabel("angle to the centre of class 1, degrees", fontsize=10)
    figure.supylabel("angle to the centre of class 2, degrees", fontsize=10)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="docs", help="folder for the two pictures")
    out = Path(parser.parse_args().out)
    for name, figure in (("margins.png", curves()), ("margin_boundaries.png", boundaries())):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
        picture.quantize(64, dither=Image.Dither.NONE).save(out / name, optimize=True)  # a quarter of the bytes
        print(f"Written: {out / name}")


if __name__ == "__main__":
    main()
