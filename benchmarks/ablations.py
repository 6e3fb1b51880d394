"""What decides a classifier's defaults: short trainings that differ in one thing each, judged by their pictures.

    python benchmarks/ablations.py --parent runs/im32 [--data DATA] [--only epsilon-2 width-16]

Variants of `PIXELS_64` fine-tune the parent to Tiny ImageNet's 65 classes at 64 pixels, those of `PIXELS_32` start from nothing
on CIFAR-10. Each generates pictures of every class, from Gaussians and from noise, at several epsilons of synthesis; the judge of
that data set, which took no part, says what it sees. Trainings and numbers that are there already are kept: an interrupted run
goes on. Writes `benchmarks/results/ablations.json` and one sheet of pictures per variant beside the trainings, and prints a
Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pyarrow import parquet

from robust_synthesis import sheet, specs
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.evaluation import provenance, synthesis
from robust_synthesis.evaluation.judge import Judge
from robust_synthesis.evaluation.proportion import Proportion
from robust_synthesis.files import atomic_write
from robust_synthesis.model_folder import find
from robust_synthesis.tasks import Inputs

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/ablations.json"
EPSILONS = (6.0, 12.0, 18.0)
"""Of synthesis, at 64 pixels."""
STEPS = 20
PICTURES = 130
SHOWN = 12


@dataclass(frozen=True)
class Variant:
    """One training. `superclasses` merges fine classes to what `classes.json` calls them."""

    name: str
    options: tuple[str, ...]
    data: str = "tiny-imagenet-65"
    judge: str = "imagenet64-judge"
    superclasses: bool = False


def pixels_64(name: str, epsilon: float, **more: Any) -> Variant:
    options = f"--size 64 --limit 6000 --epsilon {epsilon} --attack-steps 1 --lr 0.1 --epochs 3".split()
    return Variant(name, tuple(options), **more)


def pixels_32(name: str, more: str = "") -> Variant:
    options = f"--limit 16000 --epsilon 0.5 --attack-steps 1 --lr 0.2 --epochs 5 --depths 1,2,2,2 {more}".split()
    return Variant(name, tuple(options), data="cifar10", judge="cifar10-judge")


PIXELS_64 = (
    pixels_64("epsilon-0.5", 0.5),
    pixels_64("epsilon-1", 1),
    pixels_64("epsilon-2", 2),
    pixels_64("superclasses", 1, superclasses=True),
)
PIXELS_32 = (
    pixels_32("width-32", "--width 32"),
    pixels_32("width-16", "--width 16"),
    pixels_32("silu", "--width 32 --activation silu"),
    pixels_32("no-averaging", "--width 32 --ema-decay 0"),
    pixels_32("width-48", "--width 48"),
)
VARIANTS = PIXELS_64 + PIXELS_32


def train(variant: Variant, data: Path, parent: Path | None, work: Path) -> Path:
    """The variant's model folder, trained if it is not there; a training that was interrupted goes on."""
    out = work / variant.name
    if (out / "model.json").exists():
        return out
    source = data / variant.data
    if variant.superclasses:
        source = merged(source, work / "superclasses-data")
    command = [sys.executable, "-m", "robust_synthesis", "train", str(source), str(out), *variant.options]
    command += ["--run-dir", str(work / f"run-{variant.name}"), "--hold-out", "512", "--no-units", "--measure", "0"]
    if variant in PIXELS_64:
        if parent is None:
            raise SystemExit(f"{variant.name} needs --parent, a robust network of 32 pixels.")
        command += ["--init", str(parent)]
    subprocess.run(command, check=True)
    return out


def merged(data: Path, out: Path) -> Path:
    """A copy of the data set whose labels are super-classes."""
    classes = json.loads((data / "classes.json").read_text())["superclass"]
    names = sorted(set(classes))
    numbers = torch.tensor([names.index(name) for name in classes])
    out.mkdir(parents=True, exist_ok=True)
    for shard in data.glob("*.parquet"):
        table = parquet.read_table(shard)
        labels = numbers[torch.tensor(table["label"].to_pylist())].tolist()
        table = table.set_column(table.schema.get_field_index("label"), "label", [labels])
        parquet.write_table(table.replace_schema_metadata({"class_names": json.dumps(names)}), out / shard.name)
    return out


def measure(folder: Path, judge: Judge, superclass: Sequence[str]) -> dict[str, Any]:
    """What the judge sees in the variant's pictures per start and epsilon, also by the super-class of each of its classes."""
    classifier = Classifier.load(folder, precision="auto")
    card = classifier.card
    seen_as = {name: i for i, name in enumerate(judge.classifier.card.classes)}
    count = -(-PICTURES // len(card.classes))
    found: dict[str, Any] = {"held_out": card.training["held_out"], "classes": len(card.classes), "generation": []}
    rows = []
    for start in specs.STARTS:
        for epsilon in EPSILONS:
            scaled = epsilon * card.size / 64
            options: dict[str, Any] = {
                "start": start,
                "epsilon": scaled,
                "step_size": scaled / 4,
                "steps": STEPS,
                "seed": 0,
            }
            requests = (specs.Generate(target=name, count=count, **options) for name in card.classes)
            made = synthesis.make(classifier, ((request, Inputs(card.size)) for request in requests))
            seen, _ = judge.look(made.pictures)
            targets = [card.classes[target] for target in made.targets]
            entry: dict[str, Any] = {"start": start, "epsilon": epsilon}
            if len(card.classes) == len(seen_as):
                fine = Proportion.of(seen == torch.tensor([seen_as[name] for name in targets]))
                entry |= {"judged": fine.value, "interval": fine.interval}
                targets = [superclass[seen_as[name]] for name in targets]
            right = [superclass[i] == name for i, name in zip(seen.tolist(), targets, strict=True)]
            entry["judged as super-class"] = Proportion.of(torch.tensor(right)).value
            found["generation"].append(entry)
            shown = made.pictures[:: max(1, len(made.pictures) // SHOWN)][:SHOWN].numpy()
            rows.append(sheet.Row.of(f"{start}, epsilon {epsilon:g}", shown))
    sheet.draw(rows, title=folder.name).save(folder.with_name(f"{folder.name}.png"))
    return found


def table(found: dict[str, Any]) -> str:
    """Markdown: the best epsilon of synthesis of each start."""
    lines = ["| variant | held out: clean, robust | from Gaussians | from noise |", "|---|---|---|---|"]
    for name, entry in found.items():
        held, cells = entry["held_out"], []
        for start in ("gaussian", "noise"):
            tried = [one for one in entry["generation"] if one["start"] == start]
            best = max(tried, key=lambda one: one.get("judged", one["judged as super-class"]))
            fine = f"{best['judged']:.0%}, " if "judged" in best else ""
            cells.append(f"{fine}super-class {best['judged as super-class']:.0%} (epsilon {best['epsilon']:g})")
        lines.append(
            f"| `{name}` | {held['clean_accuracy']:.1%}, {held['robust_accuracy']:.1%} | {cells[0]} | {cells[1]} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parent", type=Path, help="a robust network of the 65 classes at 32 pixels; see model_store/README.md"
    )
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("ROBUST_SYNTHESIS_DATA"), help="folder of data sets"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--only", nargs="+", choices=[variant.name for variant in VARIANTS], metavar="VARIANT")
    options = parser.parse_args()
    if options.data is None:
        parser.error("give --data, or set ROBUST_SYNTHESIS_DATA")
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found = kept.get("variants", {})
    for variant in VARIANTS:
        if variant.name in found or (options.only and variant.name not in options.only):
            continue
        folder = train(variant, options.data, options.parent, options.work)
        judge = Judge(Classifier.load(find(variant.judge)))
        names = options.data / variant.data / "classes.json"
        superclass = json.loads(names.read_text())["superclass"] if names.exists() else judge.classifier.card.classes
        found[variant.name] = {
            "options": " ".join(variant.options),
            "judge": judge.network,
            **measure(folder, judge, superclass),
        }
        report = {
            "pictures": PICTURES,
            "steps": STEPS,
            "hardware": provenance.hardware(judge.classifier.device),
            "versions": provenance.versions(),
            "variants": {one.name: found[one.name] for one in VARIANTS if one.name in found},
        }
        with atomic_write(RESULTS) as file:
            file.write((json.dumps(report, indent=1) + "\n").encode())
    print(table(found))


if __name__ == "__main__":
    main()
