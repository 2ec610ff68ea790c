"""Claim: which classifier, and which vote of several, says the gender best; and which flips of labels are found.

python benchmarks/attributes.py --data <data>/fairface --weights <data>/weights/mobilefacenet.pt \
  --out bench_out [--seeds 0,1,2] [--update docs/attributes.md]
python benchmarks/attributes.py --job noise (the same)

Job `votes`: for each seed train_elem.py --task=classify once a model (MODELS), on 0.8 of train.csv with the rest to
choose by; then eval.py on test.csv for each of them, and for their votes. The votes are fitted on those validation
pictures. Job `noise`: 5 % of the labels of train.csv are flipped, train_elem.py --folds=5 lists what is probably wrong,
and the list is held against what was flipped. One JSON a row and seed; what has its JSON is skipped. --update writes
the table between the marks `<!-- votes -->` or `<!-- noise -->` and `<!-- end -->` of a page.
"""

import argparse
import csv
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import plan
from recipes import run_in, script

MODELS = json.loads((Path(__file__).parent / "attributes.json").read_text())
VOTES = {
    "hard vote": ["--vote=hard"],
    "soft vote": ["--vote=soft"],
    "weighted vote, fitted": ["--vote=weighted", "--weights=fit"],
    "fusion": ["--vote=fusion"],
}
FLIP = 0.05
BEST = "MobileFaceNet, fine-tuned"
EQUALS = f"{BEST}, soft vote of all seeds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with train.csv, test.csv and images")
    parser.add_argument("--weights", help="weights of the network that is fine-tuned")
    parser.add_argument("--out", required=True, help="folder for runs and results")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--job", choices=("votes", "noise"), default="votes")
    parser.add_argument("--update", help="page to put the table into")
    options = parser.parse_args()
    out, seeds = Path(options.out).resolve(), [int(seed) for seed in options.seeds.split(",")]
    if options.data:
        for seed in seeds:
            (votes if options.job == "votes" else noise)(options, out, seed)
        if options.job == "votes":
            equals(options, out, seeds)
    text = (votes_table if options.job == "votes" else noise_table)(out)
    if options.update:
        plan.put_between(Path(options.update), options.job, text)
    else:
        print(text)


def flags_of(model: str, weights: str) -> list[str]:
    return [flag.replace("WEIGHTS", weights) for flag in MODELS[model]]


def data_flags(data: Path) -> list[str]:
    return [f"--data_dir={data}", "--train_list=train.csv", "--test_list=test.csv"]


# ---- votes


def votes(options: argparse.Namespace, out: Path, seed: int) -> None:
    data, runs, seconds = data_flags(Path(options.data)), {}, 0.0
    for model in MODELS:
        folder = out / "runs" / f"{model}-{seed}"
        if not (out / "votes" / f"{model}-{seed}.json").exists():
            flags = [*data, "--task=classify", f"--seed={seed}", *flags_of(model, options.weights)]
            seconds = script("train_elem.py", [*flags, f"--model_save_dir={folder}"], folder, [])["seconds"]
        runs[model] = run_in(folder)
        measure(out, model, seed, data, [str(runs[model])], [], seconds)
    for name, flags in VOTES.items():
        measure(out, name, seed, data, list(map(str, runs.values())), flags, 0.0)


def equals(options: argparse.Namespace, out: Path, seeds: list[int]) -> None:
    """The vote of classifiers that are equally good: one model, all seeds."""
    runs = [str(run_in(out / "runs" / f"{BEST}-{seed}")) for seed in seeds]
    measure(out, EQUALS, 0, data_flags(Path(options.data)), runs, ["--vote=soft"], 0.0)


def measure(
    out: Path, name: str, seed: int, data: list[str], runs: list[str], flags: list[str], seconds: float
) -> None:
    """eval.py without and with the mirrored picture."""
    path = out / "votes" / f"{name}-{seed}.json"
    if path.exists():
        return
    found: dict[str, Any] = {"seconds": seconds}
    for title in ("plain", "flip"):
        place = out / "runs" / f"{name}-{seed}-eval-{title}" / "e.json"
        how = [*data, f"--pretrained_model={','.join(runs)}", f"--output={place}", "--batch_size=50", *flags]
        script("eval.py", [*how, f"--flip_test={title == 'flip'}"], place.parent, [])
        found[title] = json.loads(place.read_text())
    plan.write(path, found)
    print(f"{name} seed {seed}: {100 * found['plain']['all']['accuracy']:.2f} %, {seconds:.0f} s", flush=True)


def done(out: Path, name: str) -> dict[int, dict[str, Any]]:
    paths = (out / "votes").glob(f"{name}-*.json")
    return {int(path.stem.rpartition("-")[2]): json.loads(path.read_text()) for path in sorted(paths)}


def votes_table(out: Path) -> str:
    found = {name: done(out, name) for name in (*MODELS, *VOTES, EQUALS)}
    first = next(iter(found[next(iter(MODELS))].values()))
    races = list(first["plain"]["groups"])
    lines = [f"| row | minutes | all | all, flip test | {' | '.join(races)} | worst race |"]
    lines.append("|---" * (5 + len(races)) + "|")
    for name, runs in found.items():
        plain = [run["plain"] for run in runs.values()]
        minutes = f"{statistics.mean(run['seconds'] for run in runs.values()) / 60:.1f}" if name in MODELS else ""
        cells = [plan.cell([run["all"]["accuracy"] for run in plain])]
        cells.append(plan.cell([run["flip"]["all"]["accuracy"] for run in runs.values()]))
        cells += [plan.cell([run["groups"][race]["accuracy"] for run in plain], 1) for race in races]
        cells.append(plan.cell([min(group["accuracy"] for group in run["groups"].values()) for run in plain], 1))
        lines.append(f"| {name} | {minutes} | {' | '.join(cells)} |")
    count, seeds = first["plain"]["all"]["count"], len(found[next(iter(MODELS))])
    head = f"Accuracy in % on {count:,} test pictures, mean ± standard deviation (n - 1) of {seeds} seeds."
    head += " Minutes: training on one thread."
    return "\n".join([head, "", *lines, "", verdict(found)])


def verdict(found: dict[str, dict[int, dict[str, Any]]]) -> str:
    """Each vote against the best single model, seed by seed; that is the one with the best mean over the seeds."""

    def mean(name: str) -> float:
        return statistics.mean(run["plain"]["all"]["accuracy"] for run in found[name].values())

    best = max(MODELS, key=mean)
    told = []
    for vote in VOTES:  # EQUALS is one vote over all seeds
        gains = [
            100 * (found[vote][seed]["plain"]["all"]["accuracy"] - found[best][seed]["plain"]["all"]["accuracy"])
            for seed in found[vote]
        ]
        told.append(f"{vote} {statistics.mean(gains):+.2f} ({', '.join(f'{gain:+.1f}' for gain in gains)})")
    return f"Against the best single model, {best}, in points, mean (and each seed): {'; '.join(told)}."


# ---- flipped labels


def noise(options: argparse.Namespace, out: Path, seed: int) -> None:
    path = out / "noise" / f"{seed}.json"
    if path.exists():
        return
    data = out / "flipped" / str(seed)
    data.mkdir(parents=True, exist_ok=True)
    if not (data / "images").exists():
        (data / "images").symlink_to((Path(options.data) / "images").resolve())
    rows = list(csv.DictReader((Path(options.data) / "train.csv").read_text().splitlines()))
    flipped = np.random.default_rng(seed).permutation(len(rows))[: round(FLIP * len(rows))]
    for row in flipped:
        rows[row]["label"] = str(1 - int(rows[row]["label"]))
    with open(data / "train.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    folder = out / "runs" / f"noise-{seed}"
    flags = [f"--data_dir={data}", "--train_list=train.csv", "--test_share=0", "--task=classify", "--folds=5"]
    flags += [f"--seed={seed}", *flags_of(BEST, options.weights), "--epochs=2"]
    spent = script("train_elem.py", [*flags, f"--model_save_dir={folder}"], folder, [])
    place = next(folder.glob("*-folds"))
    listed = [Path(row["path"]).stem for row in csv.DictReader((place / "wrong_labels.csv").read_text().splitlines())]
    planted = {rows[row]["id"] for row in flipped}
    hits = np.array([name in planted for name in listed], np.float64)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    found = {
        "pictures": len(rows),
        "planted": len(planted),
        "listed": len(listed),
        "found": int(hits.sum()),
        "average_precision": float((precision * hits).sum() / len(planted)),
        "precision_of_the_first": float(hits[: len(planted)].mean()),
        "val_accuracy": json.loads((place / "results.json").read_text())["mean"]["val_accuracy"],
        "seconds": spent["seconds"],
    }
    plan.write(path, found)
    print(f"noise seed {seed}: {found}", flush=True)


def noise_table(out: Path) -> str:
    runs = [json.loads(path.read_text()) for path in sorted((out / "noise").glob("*.json"))]
    head = [
        "labels",
        "flipped",
        "listed",
        "precision, %",
        "recall, %",
        "precision of the top of the list, as many as flipped, %",
        "average precision, %",
    ]
    row = [f"{runs[0]['pictures']:,}", str(runs[0]["planted"]), plan.cell([run["listed"] / 100 for run in runs], 0)]
    row.append(plan.cell([run["found"] / run["listed"] for run in runs], 1))
    row.append(plan.cell([run["found"] / run["planted"] for run in runs], 1))
    row.append(plan.cell([run["precision_of_the_first"] for run in runs], 1))
    row.append(plan.cell([run["average_precision"] for run in runs], 1))
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", f"| {' | '.join(row)} |"]
    minutes = statistics.mean(run["seconds"] for run in runs) / 60
    accuracy = plan.cell([run["val_accuracy"] for run in runs])
    told = "1 seed" if len(runs) == 1 else f"Mean ± standard deviation (n - 1) of {len(runs)} seeds"
    said = f"{told}; out-of-fold accuracy, counting the flipped labels as true, {accuracy} %; "
    return "\n".join([*lines, "", f"{said}{minutes:.0f} minutes on one thread for the five folds."])


if __name__ == "__main__":
    main()
