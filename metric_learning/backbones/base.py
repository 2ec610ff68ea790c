"""What all backbones share: a network in two parts, with its last map between them."""

from paddle import Tensor, nn


class Backbone(nn.Layer):
    """images (B, channels, H, W) -> features (B, feature_size): to_feature(to_map(images)).

    to_map gives the last feature map (B, C, h, w), to_feature what is made of it. Training may step in between, e.g.
    cover parts of the map (metric_learning/occlusion.py).
    """

    feature_size: int

    def to_map(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def to_feature(self, last: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        return self.to_feature(self.to_map(images))
