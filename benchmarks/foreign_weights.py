"""Do foreign weights give the outputs of their own network? Each source in PyTorch against ours, the same pictures.

python benchmarks/foreign_weights.py [--only r50,resnet18] [--foamliu mobilefacenet.pt] [--output out.json]

Weights are random; running statistics are those of random pictures, each moved by chance, so that a layer in the wrong
place shows while outputs stay near 1. torchvision and timm: their own networks; face networks: torch_faces.py. Asks for
torch, torchvision and timm beside requirements-cpu.txt.

"ok" is judged in float64, where nothing but a wrong weight differs; in float32 the two libraries round otherwise, which
deep networks of random weights magnify: how far torch's own float32 is from its float64 stands beside it.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch_faces
from torch import nn

LIMIT = 1e-4  # absolute; the outputs are near 1, and are printed


def torchvision_net(name: str, headless: Callable[[nn.Module], None]) -> nn.Module:
    from torchvision import models

    net = getattr(models, name)()
    headless(net)
    return net


def timm_net(name: str) -> nn.Module:
    import timm

    return timm.create_model(name)


def no_fc(net: nn.Module) -> None:
    net.fc = nn.Identity()


def no_classifier(net: nn.Module) -> None:
    net.classifier = nn.Identity()


def until_fc7(net: nn.Module) -> None:
    net.classifier = net.classifier[:5]


def features(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What stands before the classifier."""
    if hasattr(net, "forward_head"):
        return net.forward_head(net.forward_features(images), pre_logits=True)
    return net(images)


SOURCES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], None] | None, int]] = {
    **{name: (lambda name=name: torch_faces.IResNet(name), None, 112) for name in torch_faces.IRESNETS},
    "mbf": (torch_faces.MBF, None, 112),
    "foamliu": (torch_faces.MobileFaceNet, None, 112),
    **{
        f"resnet{depth}": (lambda depth=depth: _vision(f"resnet{depth}"), no_fc, 224)
        for depth in (18, 34, 50, 101, 152)
    },
    "vgg16": (lambda: _vision("vgg16"), until_fc7, 224),
    "vgg16_bn": (lambda: _vision("vgg16_bn"), until_fc7, 224),
    "mobilenet_v2": (lambda: _vision("mobilenet_v2"), no_classifier, 224),
    "mobilenet_v3_large": (lambda: _vision("mobilenet_v3_large"), no_classifier, 224),
    "mobilenet_v3_small": (lambda: _vision("mobilenet_v3_small"), no_classifier, 224),
    "timm vit_small_patch16_224": (lambda: timm_net("vit_small_patch16_224"), None, 224),
    "timm deit_small_patch16_224": (lambda: timm_net("deit_small_patch16_224"), None, 224),
}


def _vision(name: str) -> nn.Module:
    return torchvision_net(name, lambda net: None)


def randomise(net: nn.Module, side: int) -> None:
    """Scales, slopes, biases and running statistics: no two channels alike."""
    for layer in net.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.1)
        if isinstance(layer, nn.PReLU):
            nn.init.uniform_(layer.weight, 0.0, 0.5)
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.normal_(layer.bias, 0, 0.1)
    norms = [layer for layer in net.modules() if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))]
    for layer in norms:
        layer.momentum = 1.0  # the statistics of the one batch
    if norms:
        with torch.no_grad():
            net.train()(torch.randn(8, 3, side, side))
    for layer in norms:
        layer.running_mean += 0.1 * torch.randn_like(layer.running_mean) * layer.running_var.sqrt()
        layer.running_var *= 0.9 + 0.2 * torch.rand_like(layer.running_var)


def ours(path: Path, images: np.ndarray) -> tuple[str, np.ndarray, np.ndarray]:
    """(the model that the file was recognised as, our embeddings of the images in float32, in float64)."""
    import paddle

    from metric_learning.embedder import Embedder
    from metric_learning.weights import foreign_spec, load_weights

    found = foreign_spec(path)
    if found is None:
        raise SystemExit(f"{path} was not recognised")
    embedder = Embedder(found[0])
    load_weights(embedder, path)
    embedder.eval()
    with paddle.no_grad():
        single = embedder(paddle.to_tensor(images)).numpy()
        embedder.to(dtype="float64")
        return found[0].model, single, embedder(paddle.to_tensor(images.astype(np.float64))).numpy()


def compare(name: str, net: nn.Module, path: Path, cut: Callable[[nn.Module], None] | None, side: int) -> dict:
    net.eval()
    if cut is not None:
        cut(net)
    images = np.random.default_rng(0).normal(size=(2, 3, side, side)).astype(np.float32)
    with torch.no_grad():
        single = features(net, torch.from_numpy(images)).numpy().reshape(2, -1)
        expected = features(net.double(), torch.from_numpy(images).double()).numpy().reshape(2, -1)
    model, found, exact = ours(path, images)
    difference, largest = float(np.abs(found - single).max()), float(np.abs(expected).max())
    difference64, torch_rounds = float(np.abs(exact - expected).max()), float(np.abs(single - expected).max())
    between = float(np.abs(expected[0] - expected[1]).max())  # pictures apart: a constant output would prove nothing
    result = {"source": name, "model": model, "max_difference": difference, "largest_output": largest}
    good = difference64 <= LIMIT and between > 1e-3 * largest
    print(
        f"{name:28s} {model:18s} float32 {difference:.1e}, float64 {difference64:.1e} of outputs up to {largest:.2g}; "
        f"torch's float32 from its float64 {torch_rounds:.1e}  {'ok' if good else 'WRONG'}",
        flush=True,
    )
    result |= {"max_difference_float64": difference64, "torch_rounding": torch_rounds}
    return result | {"pictures_apart": between, "within_limit_float32": difference <= LIMIT, "ok": good}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names with commas between")
    parser.add_argument("--foamliu", type=Path, help="the real file of foamliu/MobileFaceNet")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    results = []
    for name, (build, cut, side) in SOURCES.items():
        if given.only and name not in given.only.split(","):
            continue
        torch.manual_seed(0)
        net = build()
        randomise(net, side)
        with tempfile.TemporaryDirectory() as folder:
            torch.save(net.state_dict(), Path(folder) / "weights.pth")
            results.append(compare(name, net, Path(folder) / "weights.pth", cut, side))
    if given.foamliu:
        net = torch_faces.MobileFaceNet()
        net.load_state_dict(torch.load(given.foamliu, map_location="cpu", weights_only=True))
        results.append(compare("foamliu, the real file", net, given.foamliu, None, 112))
    text = json.dumps(results, indent=1)
    print(text)
    if given.output:
        given.output.write_text(text + "\n")
    return 0 if all(result["ok"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
