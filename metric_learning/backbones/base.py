"""What all backbones share: a network in two parts, with its last map between them."""

from paddle import Tensor, nn


class Backbone(nn.Layer):
    """images (B, channels, H, W) -> features (B, feature_size): from_map(to_map(images)).

    to_map gives the last feature map (B, C, h, w), from_map what is made of it. Training may step in between, e.g.
    cover parts of the map (metric_learning/occlusion.py).
    """

    feature_size: int

    def to_map(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def from_map(self, last: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        return self.from_map(self.to_map(images))
