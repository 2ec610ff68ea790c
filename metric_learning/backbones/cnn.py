"""Two plain networks to train from scratch on small pictures: 3x3 convolutions, batch normalisation, ReLU, max pooling.

Of our own; the deeper one is the layout of VGG (arXiv 1409.1556) with fewer channels and layers.
"""

from collections.abc import Sequence

from paddle import Tensor, nn

from metric_learning.backbones.base import Backbone
from metric_learning.backbones.shapes import Shape, check_sides

# Channels of the convolutions, a stage a tuple; max pooling halves the map between two stages.
SMALL = ((32,), (64,), (128,), (128,))
DEEPER = ((32, 32), (64, 64), (128, 128), (256, 256))
PLACES = 4  # a side
LEAST = 32  # pixels: a last map of 4x4


class PlainCNN(Backbone):
    """images (B, channels, H, W) -> the last map pooled to 4x4 places, (B, 16 x channels of the last stage).

    The last map is an eighth of the picture's size. Where in an aligned face something is tells more than that it is
    there, so the places are kept. Any size from 32 pixels, with the same weights; below that a UserError. There is no
    dropout inside: --dropout puts it before the classes.
    """

    def __init__(self, model: str, stages: Sequence[Sequence[int]], shape: Shape) -> None:
        super().__init__()
        check_sides(model, shape, LEAST)
        inputs, blocks = shape[0], []
        for number, widths in enumerate(stages):
            layers: list[nn.Layer] = [nn.MaxPool2D(2, 2)] if number else []
            for width in widths:
                layers += [nn.Conv2D(inputs, width, 3, padding=1, bias_attr=False), nn.BatchNorm2D(width), nn.ReLU()]
                inputs = width
            blocks.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2D((PLACES, PLACES))
        self.flatten = nn.Flatten()
        self.feature_size = inputs * PLACES * PLACES

    def to_map(self, images: Tensor) -> Tensor:
        return self.stages(images)

    def from_map(self, last: Tensor) -> Tensor:
        return self.flatten(self.pool(last))


def small_cnn(shape: Shape) -> PlainCNN:
    return PlainCNN("SmallCNN", SMALL, shape)


def deeper_cnn(shape: Shape) -> PlainCNN:
    return PlainCNN("DeeperCNN", DEEPER, shape)
