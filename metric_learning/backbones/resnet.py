"""ResNet 18..152 (arXiv 1512.03385, table 1) up to the pooled feature, on Paddle's own layers."""

import paddle
from paddle import Tensor, nn
from paddle.vision.models.resnet import BasicBlock, BottleneckBlock
from paddle.vision.models.resnet import ResNet as PaddleResNet

from metric_learning.backbones.base import Backbone
from metric_learning.backbones.shapes import Shape

DEPTHS = (18, 34, 50, 101, 152)


class ResNet(Backbone):
    """images (B, channels, H, W) -> pooled features (B, feature_size): 512 for 18 and 34 layers, 2048 for the others.

    Any picture size. Sub-layers have the names of paddle.vision, so its weights fit as they are. The stride of a
    bottleneck sits in its 3x3 convolution (the "v1.5" form that PaddleCV and torchvision have as well).
    """

    def __init__(self, depth: int, shape: Shape) -> None:
        super().__init__()
        block = BasicBlock if depth < 50 else BottleneckBlock
        net = PaddleResNet(block, depth, num_classes=0, with_pool=False)
        if shape[0] != 3:
            net.conv1 = nn.Conv2D(shape[0], 64, kernel_size=7, stride=2, padding=3, bias_attr=False)
        for name, layer in net.named_children():
            self.add_sublayer(name, layer)
        self.feature_size = 512 * block.expansion

    def to_map(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def from_map(self, last: Tensor) -> Tensor:
        return paddle.mean(last, axis=[2, 3])
