"""`train`: robust or standard training of a classifier, ending in a model folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..model_folder import CARD, WEIGHTS, ModelFolder, find

if TYPE_CHECKING:
    from ..engine.networks import Network
    from ..training.config import TrainConfig
    from ..training.datasets import ImageSet
    from ..training.trainer import Trainer

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
    group.add_argument("--weights-format", choices=("fp32", "fp16", "int8"), default="fp16")
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
    group.add_argument("--objective", choices=("adversarial", "trades", "standard"), default="adversarial")
    group.add_argument("--norm", choices=("l2", "linf"), default="l2")
    group.add_argument(
        "--epsilon", type=float, default=0.5, help="of the adversary, pixel values of [0, 1] (%(default)s)"
    )
    group.add_argument("--attack-steps", type=int, default=2)
    group.add_argument("--attack-step-size", type=float, help="default: epsilon, or 2.5 epsilon / steps")
    group.add_argument("--random-start", action="store_true", help="start the adversary at a random point")
    group.add_argument("--beta", type=float, default=6.0, help="TRADES: weight of robustness (%(default)s)")
    group.add_argument("--epochs", type=int, default=14)
    group.add_argument("--batch-size", type=int, default=256)
    group.add_argument("--lr", type=float, default=0.1)
    group.add_argument("--schedule", choices=("onecycle", "cosine"), default="onecycle")
    group.add_argument("--momentum", type=float, default=0.9)
    group.add_argument("--weight-decay", type=float, default=5e-4)
    group.add_argument("--label-smoothing", type=float, default=0.0)
    group.add_argument("--ema-decay", type=float, default=0.995)
    group.add_argument("--clip", type=float, default=1.0, help="largest gradient norm; 0: no clipping")
    group.add_argument("--crop-padding", type=int, default=4)
    group.add_argument("--no-flip", dest="flip", action="store_false")
    group.add_argument("--jitter", type=float, default=0.0, help="of brightness, contrast and saturation")
    group.add_argument("--hold-out", type=int, default=1000, help="train images that choose the checkpoint")
    group.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    group.add_argument("--compile", action="store_true", help="compile the network with torch.compile")
    group.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> None:
    import dataclasses

    from ..training import datasets
    from ..training.config import TrainConfig
    from ..training.trainer import Trainer

    name = options.name or options.out.name
    if options.out.exists() and any(options.out.iterdir()) and not (options.out / CARD).is_file():
        raise InvalidInput("out", f"{options.out} holds something that is not a model folder; choose another folder.")
    data = datasets.load(options.data, "train", size=options.size, limit=options.limit)
    names = {field.name for field in dataclasses.fields(TrainConfig)} & vars(options).keys()
    config = TrainConfig(
        **{key: getattr(options, key) for key in names}, architecture=_architecture(options, data.size)
    )
    init = _initial_network(options.init, data) if options.init else None
    trainer = Trainer(config, data, options.run_dir or Path("runs") / name, init=init)
    if trainer.resume():
        print(f"going on after epoch {trainer.epoch} of {config.epochs}")
    _train(trainer)
    if trainer.rank.index == 0:
        _publish(options, name, trainer, data, config)
    trainer.close()


def _architecture(options: argparse.Namespace, size: int) -> dict[str, Any]:
    if options.init:
        return dict(ModelFolder.open(find(options.init)).card.architecture)
    network = dict(NETWORKS[options.network])
    if network["kind"] == "resnet":
        network["stem"] = options.stem or ("small" if size <= 64 else "large")
        network["width"] = options.width or network["width"]
        if options.depths:
            network["depths"] = [int(depth) for depth in options.depths.split(",")]
    return network


def _initial_network(model: str, data: ImageSet) -> Network:
    """The network of a model folder; its head is new when the classes are others."""
    from ..engine import networks, weights

    folder = ModelFolder.open(find(model))
    network = networks.build(folder.card.architecture, len(data.class_names))
    state = weights.read(folder.path / WEIGHTS)
    if list(folder.card.classes) != data.class_names:
        state |= {f"fc.{key}": value for key, value in network.fc.state_dict().items()}
    weights.fill(network, state, str(folder.path / WEIGHTS))
    return network


def _train(trainer: Trainer) -> None:
    import torch
    from torch.utils.tensorboard import SummaryWriter
    from tqdm import tqdm

    quiet = trainer.rank.index > 0
    log = None if quiet else SummaryWriter(str(trainer.folder))
    with tqdm(total=trainer.steps_per_epoch, unit="batch", disable=True if quiet else None, leave=False) as bar:

        def on_step(step: int, loss: torch.Tensor) -> None:
            if step % 10 == 0 and not bar.disable:
                bar.set_description(f"epoch {trainer.epoch + 1}/{trainer.config.epochs}", refresh=False)
                bar.set_postfix_str(f"loss {float(loss):.3f}", refresh=False)
            bar.update(step + 1 - bar.n)

        for report in trainer.run(on_step):
            if log is None:
                continue
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


def _publish(options: argparse.Namespace, name: str, trainer: Trainer, data: ImageSet, config: TrainConfig) -> None:
    from ..training.publish import publish

    role = options.role or ("standard" if config.objective == "standard" else "robust")
    folder = publish(
        trainer.best_network,
        data,
        config,
        trainer.normalise,
        options.out,
        name=name,
        role=role,
        history=trainer.history,
        weights_format=options.weights_format,
        seeds=options.seeds,
        units=options.units,
    )
    print(f"{folder.path}: version {folder.version}")
