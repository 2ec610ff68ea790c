"""Networks for tests, written where they are used."""

from paddle import nn


class Net(nn.Layer):
    """A function of layers."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_sublayer(name, layer)

    def forward(self, x):
        return self.function(self, x)
