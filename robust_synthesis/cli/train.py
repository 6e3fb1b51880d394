"""`train`: robust or standard training of a classifier, ending in a model folder."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, InvalidInput
from ..files import check_writable
from ..model_folder import CARD
from ..training.architecture import NETWORKS, architecture, with_stem
from .options import progress_bar_for_counts

if TYPE_CHECKING:
    from ..training.datasets import ImageSet
    from ..training.trainer import EpochReport, Trainer


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
    group.add_argument("--activation", choices=("relu", "silu", "gelu"), help="between convolutions (relu)")
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
    group.add_argument("--noise", type=float, default=0.0, help="largest deviation of Gaussian noise on an image")
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
    from ..training.parent import Parent
    from ..training.trainer import Trainer

    # Whatever can be refused is refused before the hours of training.
    if options.measure < 0:
        raise InvalidInput("measure", f"is {options.measure}; give a number of test images, or 0.")
    options.out = options.out.absolute()
    publish.kept_defaults(options.out)
    check_writable(options.out / CARD)
    names = {field.name for field in dataclasses.fields(TrainConfig)} & vars(options).keys()
    config = TrainConfig(**{name: getattr(options, name) for name in names})
    parent = Parent(options.init) if options.init else None
    own = {name: getattr(options, name) for name in ("width", "depths", "stem", "activation")}
    network = parent.architecture if parent else architecture(options.network, **own)
    data = datasets.load(options.data, "train", size=options.size, limit=options.limit)
    _check_classes(data, options.seeds)
    config = dataclasses.replace(config, architecture=network if parent else with_stem(network, data.size))
    name = options.name or options.out.name
    trainer = Trainer(
        config,
        data,
        options.run_dir or Path("runs") / name,
        init=parent.network(data.class_names, config.seed) if parent else None,
        normaliser=parent.normaliser if parent else None,
    )
    resumed = trainer.resume()
    if trainer.rank.index == 0 and resumed:
        print(f"going on after epoch {trainer.epoch} of {config.epochs}")
    _train(trainer)
    if trainer.rank.index == 0:
        _publish(options, name, trainer, data)
        if options.measure:
            _measure(options, trainer)
    trainer.close()


def _check_classes(data: ImageSet, seeds: bool) -> None:
    for name, count in zip(data.class_names, data.labels.bincount(minlength=len(data.class_names)), strict=True):
        if count < (2 if seeds else 1):
            needs = (
                "a Gaussian seed needs at least 2, or give --no-seeds" if seeds and count else "add some or remove it"
            )
            raise DataError(f"data: class {name!r} has {int(count)} images; {needs}.")


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


def _measure(options: argparse.Namespace, trainer: Trainer) -> None:
    from ..training.measurement import measure

    with progress_bar_for_counts() as on_progress:
        line = measure(options.out, trainer.config, options.measure, on_progress)
    print(line)
