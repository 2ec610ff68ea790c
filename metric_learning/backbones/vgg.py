"""VGG16, with and without batch normalisation (arXiv 1409.1556, table 1, column D), on Paddle's own layers."""

from paddle import Tensor, nn
from paddle.vision.models.vgg import cfgs, make_layers

from metric_learning.backbones.base import Backbone
from metric_learning.backbones.shapes import Shape, check_sides

PLACES = 7  # the map that fc6 sees, as at 224x224 pixels


class VGG16(Backbone):
    """images (B, channels, H, W) -> "fc7" (B, 4096): the second fully connected layer behind its ReLU, before dropout.

    That is what is meant by the feature of a pretrained VGG16. The last map is pooled to 7x7 first, as in paddle.vision
    and torchvision, so every size from 32 pixels fits the same weights. Names are those of paddle.vision.
    """

    feature_size = 4096

    def __init__(self, shape: Shape, batch_norm: bool = False) -> None:
        super().__init__()
        check_sides("VGG16BN" if batch_norm else "VGG16", shape, 32)
        self.features = make_layers(cfgs["D"], batch_norm=batch_norm)
        if shape[0] != 3:
            self.features[0] = nn.Conv2D(shape[0], 64, kernel_size=3, padding=1)
        self.avgpool = nn.AdaptiveAvgPool2D((PLACES, PLACES))
        self.flatten = nn.Flatten()
        size = self.feature_size
        self.classifier = nn.Sequential(
            nn.Linear(512 * PLACES * PLACES, size), nn.ReLU(), nn.Dropout(0.5), nn.Linear(size, size), nn.ReLU()
        )

    def to_map(self, images: Tensor) -> Tensor:
        return self.features(images)

    def from_map(self, last: Tensor) -> Tensor:
        return self.classifier(self.flatten(self.avgpool(last)))
