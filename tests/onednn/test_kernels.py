"""Every primitive of every network has a kernel: oneDNN's plain loops take up to hundreds of times as long."""

import math

import paddle
import pytest

from metric_learning.backbones import BACKBONES, backbone
from metric_learning.onednn import library as dnn
from metric_learning.onednn.plan import Plan
from metric_learning.onednn.trunk import Trunk
from metric_learning.runtime import computes_bfloat16, onednn_works

pytestmark = [
    pytest.mark.filterwarnings("ignore:When training"),
    pytest.mark.skipif(not onednn_works(), reason="this build trains through eager convolutions"),
]
# A net of each kind; ViT is left to Paddle.
NAMES = [name for name in BACKBONES if not name.endswith(("34", "101", "152", "X2")) and name != "ViTS16"]
KINDS = [False, pytest.param(True, marks=pytest.mark.skipif(not computes_bfloat16(), reason="no bfloat16 here"))]


@pytest.mark.sweep
@pytest.mark.parametrize("bfloat16", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_no_map_is_computed_by_plain_loops(name, bfloat16, monkeypatch):
    run, slow = Plan.run, []

    def watched(plan, description, places):
        _, channels, *sides = places.get(dnn.SRC, places.get(dnn.DIFF_SRC)).layout.dims
        # A number a channel may take its time; where the last block is not full (MobileNetV3), little is lost.
        if description.slow and math.prod(sides) > 1 and channels % 16 == 0:
            slow.append({place: (memory.layout.dims, memory.layout.kind) for place, memory in places.items()})
        run(plan, description, places)

    monkeypatch.setattr(Plan, "run", watched)
    paddle.seed(0)
    net = backbone(name, (3, 64, 64))
    net.train()
    Trunk(net.to_map, 3, bfloat16)(paddle.rand([2, 3, 64, 64]))
    assert slow == []


def test_plain_loops_are_told():
    """A sum of a map in two orders has none."""
    x = dnn.Layout([2, 32, 5, 5], dnn.FLOAT32, dnn.CHANNELS_LAST)
    assert not dnn.binary(dnn.ADD, x, x, x).slow
    assert dnn.binary(dnn.ADD, x, dnn.Layout([2, 32, 5, 5]), dnn.Layout([2, 32, 5, 5])).slow
