"""Claim: paddlepaddle-gpu 2.6.2 can't compute on a GPU of compute capability 9.0: next to none of its code is for it.

python benchmarks/gpu_code.py                  # the installed build
python benchmarks/gpu_code.py libphi.so        # any library

Prints for which architectures the libraries of a build have CUDA code, as JSON.

Machine code (sm_80) runs on GPUs of the same major compute capability only; PTX (compute_80) runs on all later ones.
A library without either for a GPU can't compute there, whatever its driver. The layout read here is that of a fatbin:
a header (magic, version, its size, size of what follows), then entries (kind 1 PTX or 2 machine code, header size,
size, architecture), as NVIDIA's compilers have written it since CUDA 4.
"""

import json
import mmap
import struct
import sys
from collections import Counter
from importlib import metadata, util
from pathlib import Path

MAGIC = struct.pack("<I", 0xBA55ED50)
KINDS = {1: "PTX compute_", 2: "machine code sm_"}


def architectures(path: Path) -> dict[str, dict[str, int]]:
    """kind and architecture -> how many objects, and their size in MB."""
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = data.find(MAGIC)
        while place >= 0:
            version, header, length = struct.unpack_from("<HHQ", data, place + 4)
            end = place + header + length
            if version != 1 or header != 16 or end > len(data):
                place = data.find(MAGIC, place + 4)
                continue
            place += header
            while place < end:
                kind, _, own, length = struct.unpack_from("<HHIQ", data, place)
                name = f"{KINDS.get(kind, kind)}{struct.unpack_from('<I', data, place + 28)[0]}"
                count[name] += 1
                size[name] += length
                place += own + length
            place = data.find(MAGIC, end)
    return {name: {"objects": count[name], "MB": round(size[name] / 2**20)} for name in sorted(count)}


def main() -> None:
    named = [Path(name) for name in sys.argv[1:]]
    spec = util.find_spec("paddle")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    files = named or sorted([*folder.glob("libs/*.so*"), *folder.glob("base/*.so")])
    found = {path.name: kinds for path in files if (kinds := architectures(path))}
    builds = [f"{d.name} {d.version}" for d in metadata.distributions() if (d.name or "").startswith("paddlepaddle")]
    print(json.dumps({"builds": builds, "libraries": found}, indent=1))


if __name__ == "__main__":
    main()
