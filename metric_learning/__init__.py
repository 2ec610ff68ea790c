"""Deep metric learning for PaddlePaddle: train an embedding, measure it honestly, use it.

Importing this package does not import Paddle; the modules that need it do.
"""

# paddlepaddle-gpu 2.6.2 exports zlib symbols of its own: who loads zlib after Paddle crashes on the first PNG or npz.
import zlib  # noqa: F401

from metric_learning.checks import UserError

__all__ = ["UserError", "__version__"]
__version__ = "0.1.0"
