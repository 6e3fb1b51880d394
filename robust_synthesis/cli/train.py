"""`train`: robust or standard training of a classifier, ending in a model folder."""

from __future__ import annotations

import argparse
import dataclasses
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, InvalidInput, SynthesisError
from ..model_folder import WEIGHTS, Card, ModelFolder, find
from .options import progress_bar_for_counts

if TYPE_CHECKING:
    from ..engine.networks import Network
    from ..training.config import TrainConfig
    from ..training.datasets import ImageSet
    from ..training.trainer import EpochReport, Normaliser, Trainer

NETWORKS: dict[str, dict[str, Any]] = {
    "resnet18": {"kind": "resnet", "block": "basic", "depths": [2, 2, 2, 2], "width": 64},
    "resnet34": {"kind": "resnet", "block": "basic", "depths": [3, 4, 6, 3], "width": 64},
    "resnet50": {"kind": "resnet", "block": "bottleneck", "depths": [3, 4, 6, 3], "width": 64},
    "plain": {"kind": "plain"},
}


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "train",
        help="train a robust classifier and write its model folder",
        description="Train a classifier against an adversary (or, for comparison, without one) and write its model folder. "
        "A run that was interrupted goes on where its last epoch ended. Several GPUs: torchrun -m robust_synthesis train ...",
    )
    parser.set_defaults(run=run, extra="train")
    parser.add_argument(
        "data", help="folder of parquet shards, folder with one sub-folder per class, or torchvision:cifar10"
    )
    parser.add_argument("out", type=Path, help="the model folder to write")
    parser.add_argument("--name", help="default: the folder's name")
    parser.add_argument("--run-dir", type=Path, help="checkpoints and TensorBoard logs (default: runs/NAME)")
    _add_network(parser)
    _add_training(parser)
    group = parser.add_argument_group("model folder")
    group.add_argument("--role", choices=("robust", "standard", "judge"), help="default: by the objective")
    group.add_argument(
        "--weights-format", choices=("fp32", "fp16", "int8"), default="fp16", help="how to store them (%(default)s)"
    )
    group.add_argument("--no-seeds", dest="seeds", action="store_false", help="fit no class Gaussians")
    group.add_argument("--no-units", dest="units", action="store_false", help="collect no catalogue of latent units")
    group.add_argument(
        "--measure", type=int, default=200, metavar="N", help="test images for AutoAttack; 0: none (%(default)s)"
    )


def _add_network(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network")
    group.add_argument("--network", choices=sorted(NETWORKS), default="resnet18", help="(%(default)s)")
    group.add_argument("--width", type=int, help="channels of the first stage (64)")
    group.add_argument("--depths", help="blocks of each stage, such as 2,2,2,2")
    group.add_argument("--stem", choices=("small", "large"), help="3x3 stride 1, or 7x7 with max-pool (by image size)")
    group.add_argument("--init", metavar="MODEL", help="fine-tune this model folder; takes its network")


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--size", type=int, help="side that images are resized to")
    group.add_argument("--limit", type=int, help="use only the first images")
    group.add_argument(
        "--objective",
        choices=("adversarial", "trades", "standard"),
        default="adversarial",
        help="what is minimised (%(default)s)",
    )
    group.add_argument("--norm", choices=("l2", "linf"), default="l2", help="of the adversary (%(default)s)")
    group.add_argument(
        "--epsilon", type=float, default=0.5, help="of the adversary, pixel values of [0, 1] (%(default)s)"
    )
    group.add_argument("--attack-steps", type=int, default=2, help="of the adversary (%(default)s)")
    group.add_argument("--attack-step-size", type=float, help="default: epsilon, or 2.5 epsilon / steps")
    group.add_argument("--random-start", action="store_true", help="start the adversary at a random point")
    group.add_argument("--beta", type=float, default=6.0, help="TRADES: weight of robustness (%(default)s)")
    group.add_argument("--epochs", type=int, default=14, help="passes over the data (%(default)s)")
    group.add_argument("--batch-size", type=int, default=256, help="images in a batch, over all GPUs (%(default)s)")
    group.add_argument("--lr", type=float, default=0.1, help="largest learning rate (%(default)s)")
    group.add_argument(
        "--schedule", choices=("onecycle", "cosine"), default="onecycle", help="of the learning rate (%(default)s)"
    )
    group.add_argument("--momentum", type=float, default=0.9, help="of the descent (%(default)s)")
    group.add_argument("--weight-decay", type=float, default=5e-4, help="(%(default)s)")
    group.add_argument("--label-smoothing", type=float, default=0.0, help="share of the other classes (%(default)s)")
    group.add_argument("--ema-decay", type=float, default=0.995, help="of the averaged weights (%(default)s)")
    group.add_argument("--clip", type=float, default=1.0, help="largest gradient norm; 0: no clipping")
    group.add_argument("--crop-padding", type=int, default=4, help="random crops shift by so many pixels (%(default)s)")
    group.add_argument("--no-flip", dest="flip", action="store_false", help="mirror no images")
    group.add_argument("--jitter", type=float, default=0.0, help="of brightness, contrast and saturation")
    group.add_argument("--hold-out", type=int, default=1000, help="train images that choose the checkpoint")
    group.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="auto: bf16 where it is fast (%(default)s)",
    )
    group.add_argument("--compile", action="store_true", help="compile the network with torch.compile")
    group.add_argument("--seed", type=int, default=0, help="of everything random (%(default)s)")


def run(options: argparse.Namespace) -> None:
    from ..training import datasets, publish
    from ..training.config import TrainConfig
    from ..training.trainer import Trainer

    # Whatever can be refused is refused before the hours of training.
    if options.measure < 0:
        raise InvalidInput("measure", f"is {options.measure}; give a number of test images, or 0.")
    options.out = options.out.absolute()
    publish.kept_defaults(options.out)
    names = {field.name for field in dataclasses.fields(TrainConfig)} & vars(options).keys()
    config = TrainConfig(**{name: getattr(options, name) for name in names})
    start = _Start.read(options.init) if options.init else None
    network = dict(start.card.architecture) if start else _architecture(options)
    data = datasets.load(options.data, "train", size=options.size, limit=options.limit)
    _check_classes(data, options.seeds)
    if start is None and network["kind"] == "resnet":
        network.setdefault("stem", "small" if data.size <= 64 else "large")
    config = dataclasses.replace(config, architecture=network)
    name = options.name or options.out.name
    trainer = Trainer(
        config,
        data,
        options.run_dir or Path("runs") / name,
        init=start.network(data.class_names, config.seed) if start else None,
        normaliser=start.normaliser() if start else None,
    )
    resumed = trainer.resume()
    if trainer.rank.index == 0 and resumed:
        print(f"going on after epoch {trainer.epoch} of {config.epochs}")
    _train(trainer)
    if trainer.rank.index == 0:
        _publish(options, name, trainer, data)
        if options.measure:
            _measure(options.out, config, options.measure)
    trainer.close()


def _architecture(options: argparse.Namespace) -> dict[str, Any]:
    network = dict(NETWORKS[options.network])
    given = {name: getattr(options, name) for name in ("width", "depths", "stem") if getattr(options, name) is not None}
    if given and network["kind"] != "resnet":
        raise InvalidInput(next(iter(given)), f"does not apply to the network {options.network}; leave it out.")
    if given.get("width", 1) < 1:
        raise InvalidInput("width", f"is {options.width}; give a number of channels from 1.")
    if "depths" in given:
        if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", options.depths):
            raise InvalidInput("depths", f"is {options.depths!r}; give whole numbers from 1, such as 2,2,2,2.")
        given["depths"] = [int(depth) for depth in options.depths.split(",")]
    return network | given


def _check_classes(data: ImageSet, seeds: bool) -> None:
    for name, count in zip(data.class_names, data.labels.bincount(minlength=len(data.class_names)), strict=True):
        if count < (2 if seeds else 1):
            needs = (
                "a Gaussian seed needs at least 2, or give --no-seeds" if seeds and count else "add some or remove it"
            )
            raise DataError(f"data: class {name!r} has {int(count)} images; {needs}.")


@dataclass(frozen=True)
class _Start:
    """The model folder that a run fine-tunes."""

    path: Path
    card: Card

    @classmethod
    def read(cls, model: str) -> _Start:
        folder = ModelFolder.open(find(model))
        return cls(folder.path, folder.card)

    def network(self, classes: list[str], seed: int) -> Network:
        """Its network; the head is new when the classes are others."""
        import torch

        from ..engine import networks, weights

        torch.manual_seed(seed)
        network = networks.build(self.card.architecture, len(classes))
        state = weights.read(self.path / WEIGHTS)
        if list(self.card.classes) != classes:
            state |= {f"fc.{key}": value for key, value in network.fc.state_dict().items()}
        weights.fill(network, state, str(self.path / WEIGHTS))
        return network

    def normaliser(self) -> Normaliser:
        """The statistics that the network is used to."""
        import torch

        from ..training.trainer import Normaliser

        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.card.mean, self.card.std))
        return Normaliser(mean, std)


def _train(trainer: Trainer) -> None:
    import torch
    from torch.utils.tensorboard import SummaryWriter
    from tqdm import tqdm

    quiet = trainer.rank.index > 0
    log = None if quiet else SummaryWriter(str(trainer.folder))
    latest: EpochReport | None = None
    with tqdm(total=trainer.steps_per_epoch, unit="batch", disable=True if quiet else None, leave=False) as bar:

        def on_step(step: int, loss: torch.Tensor) -> None:
            if step % 10 == 0 and not bar.disable:
                bar.set_description(f"epoch {trainer.epoch + 1}/{trainer.config.epochs}", refresh=False)
                held_out = f", clean {latest.clean_accuracy:.1%}, robust {latest.robust_accuracy:.1%}" if latest else ""
                bar.set_postfix_str(f"loss {float(loss):.3f}{held_out}", refresh=False)
            bar.update(step + 1 - bar.n)

        for report in trainer.run(on_step):
            if log is None:
                continue
            latest = report
            bar.reset()
            with tqdm.external_write_mode():
                print(
                    f"epoch {report.epoch}/{trainer.config.epochs}: loss {report.loss:.3f}, "
                    f"clean {report.clean_accuracy:.1%}, robust {report.robust_accuracy:.1%}, {report.seconds:.0f} s",
                    flush=True,
                )
            for key in ("loss", "clean_accuracy", "robust_accuracy"):
                log.add_scalar(key, getattr(report, key), report.epoch)
            log.flush()
    if log is not None:
        log.close()


def _publish(options: argparse.Namespace, name: str, trainer: Trainer, data: ImageSet) -> None:
    from ..training.publish import publish

    config = trainer.config
    folder = publish(
        trainer.best_network,
        data,
        config,
        trainer.normalise,
        options.out,
        name=name,
        role=options.role or ("standard" if config.objective == "standard" else "robust"),
        history=trainer.history,
        weights_format=options.weights_format,
        seeds=options.seeds,
        units=options.units,
    )
    print(f"{folder.path}: version {folder.version}")


def _measure(path: Path, config: TrainConfig, images: int) -> None:
    """Accuracy on the test split, robust at the radius trained for, onto the card; says so where that is not possible."""
    from ..engine.classifier import Classifier
    from ..evaluation import EvaluationOptions, evaluate
    from ..training import datasets

    if "test" not in datasets.splits(config.data):
        print("not measured: the data has no test split")
        return
    if find_spec("pyautoattack") is None:
        print("not measured: robust accuracy needs pyautoattack; pip install 'robust-synthesis[evaluate]'")
        return
    classifier = Classifier.load(path)
    radii = {"l2": None, "linf": None} | {config.norm: config.epsilon}
    chosen = EvaluationOptions(only=("accuracy",), images=images, l2=radii["l2"], linf=radii["linf"])
    try:
        test = datasets.load(config.data, "test", size=classifier.card.size)
        with progress_bar_for_counts() as on_progress:
            found = evaluate(classifier, test, options=chosen, on_progress=on_progress)
    except SynthesisError as error:
        print(f"not measured: {error}")
        return
    found.keep(path)
    measured = found.headline()
    clean, (robust,) = measured["clean_accuracy"], measured["robust_accuracy"]
    print(
        f"test: clean {clean['value']:.1%} of {clean['count']}, robust {robust['value']:.1%} of {robust['count']} "
        f"(AutoAttack, {robust['norm']} {robust['epsilon']:g})"
    )
