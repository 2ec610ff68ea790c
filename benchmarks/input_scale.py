"""Claim: lists of pictures are held in a few dozen bytes a picture, and records are read at random without delay.

python benchmarks/input_scale.py [--folder DIR] [--counts 100000 1000000 10000000] [--update docs/scale_input.md]

Prints JSON: for a generated csv and a generated RecordIO file with its index, of each count of pictures (50 a class):
seconds to read the list and split it by class, bytes a picture held afterwards and at the peak, each in a process of
its own; how many records a second 1, 4 and 8 threads read at random, and how many from a memory map; and what the first
batch of 512 and those after it cost the sampler. Bytes are those of the process alone (RssAnon); pages of the mapped
file come on top and can be given up.
--update puts the tables between the marks of a page. Needs 4 GB of disk in DIR.
"""

import argparse
import json
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from plan import put_between

PICTURES = 50  # of each class
GROUPS = ("African", "Asian", "Caucasian", "Indian")
RECORD = 64  # bytes: the smallest records that have a header and a picture
RANDOM = 12_000  # bytes of the records that are read at random
WAYS = ("read_warm", "read_cold", "map_warm", "map_cold")
HEADER = np.array([0xCED7230A, 0, 0, 0, 0, 0, 0, 0, 1], "<u4")  # magic, length; flag, label, id, id2; a picture begins


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where the lists are generated (default: a temporary folder)")
    parser.add_argument("--counts", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--update", help="page to put the tables into")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = {
            "lists": [lists(Path(folder), kind, count) for kind in ("csv", "recordio") for count in options.counts],
            "records_per_s": random_reads(Path(folder)),
            "samplers": [sampling(count) for count in (*options.counts, 10**8)],
            "load": os.getloadavg()[0],
        }
    print(json.dumps(found, indent=1))
    if options.update:
        for name, text in tables(found).items():
            put_between(Path(options.update), name, text)


# ---- lists


def lists(folder: Path, kind: str, count: int) -> dict[str, Any]:
    """Generate a list and read it in a new process."""
    place = folder / kind
    place.mkdir(exist_ok=True)
    {"csv": write_csv, "recordio": write_records}[kind](place, count)
    command = [sys.executable, __file__, "--one", str(place), kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"kind": kind, "pictures": count, **json.loads(done.stdout)}


def write_csv(place: Path, count: int) -> None:
    with open(place / "list.csv", "w") as file:
        file.write("path,label,group\n")
        for k in range(count):
            person = k // PICTURES
            file.write(f"faces/id{person:07d}/{k % PICTURES:03d}.jpg,id{person:07d},{GROUPS[person % 4]}\n")


def write_records(place: Path, count: int, size: int = RECORD) -> None:
    with open(place / "train.rec", "wb") as file, open(place / "train.idx", "w") as index:
        for begin in range(0, count, 10_000):
            numbers = np.arange(begin, min(begin + 10_000, count))
            words = np.zeros((len(numbers), size // 4), "<u4")
            words[:, :9] = HEADER
            words[:, 1] = size - 8
            words[:, 3] = (numbers // PICTURES).astype("<f4").view("<u4")
            file.write(words.tobytes())
            index.writelines(f"{number}\t{number * size}\n" for number in numbers)


def measure(place: str, kind: str) -> dict[str, Any]:
    """Read and split, and watch the memory that is the process's own."""
    from metric_learning.data.splits import load_splits

    before, highest, done = own_memory(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            highest[0] = max(highest[0], own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    splits = load_splits(place, kind)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    after, count = own_memory(), sum(len(part) for part in (splits.train, splits.val, splits.test))
    return {
        "seconds": round(seconds, 2),
        "bytes_held": round((after - before) / count, 1),
        "bytes_peak": round((max(highest[0], after) - before) / count, 1),
    }


def own_memory() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


# ---- records and samplers


def random_reads(folder: Path, count: int = 200_000) -> list[dict[str, Any]]:
    """Records a second, by threads, of a file of 12 kB records: as the loader reads them, and from a memory map.

    warm: the file is in the memory of the system. cold: it was dropped from there (below it a disk may still have it).
    """
    from metric_learning.data.pictures import encoded
    from metric_learning.data.record_lists import read_recordio

    place = folder / "random"
    place.mkdir()
    write_records(place, count, RANDOM)
    paths = read_recordio(place)["all"].paths
    rows = np.random.default_rng(0).permutation(count)[:4000].tolist()
    found = []
    for threads in (1, 4, 8):
        with open(place / "train.rec", "rb") as file:
            os.fsync(file.fileno())
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            ways = {
                "read": lambda row: len(encoded(paths[row])),
                "map": lambda row, data=mapped: len(bytes(data[RANDOM * row : RANDOM * (row + 1)])),
            }
            rates: dict[str, Any] = {"threads": threads}
            for way, read in ways.items():
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                for state in ("cold", "warm"):
                    with ThreadPoolExecutor(threads) as pool:
                        start = time.perf_counter()
                        sum(pool.map(read, rows))
                        rates[f"{way}_{state}"] = round(len(rows) / (time.perf_counter() - start))
            found.append(rates)
    return found


def sampling(count: int, batch: int = 512, steps: int = 20) -> dict[str, Any]:
    """A shuffled order over `count` pictures: seconds until the first batch, milliseconds for each one after it."""
    from metric_learning.data.samplers import ShuffleSampler

    start = time.perf_counter()
    sampler = ShuffleSampler(count, batch)
    sampler.batch(0)
    first = time.perf_counter() - start
    start = time.perf_counter()
    for step in range(1, steps + 1):
        sampler.batch(step)
    later = (time.perf_counter() - start) / steps
    held = sampler._latest[1]
    return {
        "pictures": count,
        "first_s": round(first, 3),
        "batch_ms": round(1000 * later, 3),
        "bytes": held.nbytes if isinstance(held, np.ndarray) else held._keys.nbytes,
    }


# ---- the page


def tables(found: dict[str, Any]) -> dict[str, str]:
    rows = ["| list | pictures | seconds | bytes a picture, held | bytes a picture, peak |", "|---|---|---|---|---|"]
    rows += [
        f"| {row['kind']} | {row['pictures']:,} | {row['seconds']:.1f} | {row['bytes_held']:.0f} "
        f"| {row['bytes_peak']:.0f} |"
        for row in found["lists"]
    ]
    reads = ["| threads | read, warm | read, cold | memory map, warm | memory map, cold |", "|---|---|---|---|---|"]
    reads += [f"| {row['threads']} | {' | '.join(f'{row[way]:,}' for way in WAYS)} |" for row in found["records_per_s"]]
    orders = ["| pictures | first batch, s | each batch of 512, ms | bytes of the order |", "|---|---|---|---|"]
    orders += [
        f"| {row['pictures']:,} | {row['first_s']:.3f} | {row['batch_ms']:.2f} | {row['bytes']:,} |"
        for row in found["samplers"]
    ]
    return {"lists": "\n".join(rows), "records": "\n".join(reads), "samplers": "\n".join(orders)}


if __name__ == "__main__":
    main()
