"""Options and outputs that several verbs share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..files import atomic_write
from ..results import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..library import Synthesizer


class Verb(argparse.ArgumentParser):
    """A verb's parser. `late` adds what takes a while to import, once the verb is used."""

    late: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        late, self.late = self.late, None
        if late is not None:
            try:
                late(self)
            except ModuleNotFoundError as error:
                self.error(f"needs {error.name}; pip install 'robust-synthesis[{self.get_default('extra')}]'.")
        return super().parse_known_args(args, namespace)


def add_model(parser: argparse.ArgumentParser, default: str = "cifar10") -> None:
    parser.add_argument(
        "--model",
        default=default,
        metavar="NAME",
        help="a model folder, or its name in the models directory (%(default)s)",
    )
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:N (default: a GPU where there is one)")


def load(options: argparse.Namespace) -> Synthesizer:
    """The synthesizer for the options of `add_model`."""
    from .. import load as load_model

    return load_model(options.model, device=options.device)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[Progress], None]]:
    """A live bar on the terminal's error stream, silent where that is not a terminal."""
    with tqdm(desc=title, unit="step", disable=None, leave=False) as bar:

        def show(progress: Progress) -> None:
            bar.total = progress.steps
            bar.set_postfix_str(f"loss {progress.loss:.3f}, probability {progress.probability:.2f}", refresh=False)
            bar.update(progress.step - bar.n)

        yield show


@contextmanager
def progress_bar_for_counts() -> Iterator[Callable[[str, int, int], None]]:
    """A live bar for work in several parts: (part, done, total)."""
    with tqdm(disable=None, leave=False) as bar:
        shown = ""

        def show(part: str, done: int, total: int) -> None:
            nonlocal shown
            if part != shown:
                shown = part
                bar.reset(total)
                bar.set_description(part, refresh=False)
            bar.total = total
            bar.update(done - bar.n)

        yield show


def write_json(path: Path, value: Any) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
