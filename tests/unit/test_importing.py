"""Checkpoints of other code, made here in each of their layouts, imported and compared with their source."""

from __future__ import annotations

import io
import os
import pickle
import re
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from robust_synthesis.engine import networks, weights
from robust_synthesis.engine.networks import Network
from robust_synthesis.errors import InvalidInput, ModelError
from robust_synthesis.importing import CIFAR10, import_checkpoint
from robust_synthesis.importing.inert_pickle import Name, Unknown, load
from robust_synthesis.model_folder import WEIGHTS, ModelFolder

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201)
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "small basic": {"kind": "resnet", "block": "basic", "depths": [2, 1, 1, 2], "width": 8, "stem": "small"},
    "small bottleneck": {"kind": "resnet", "block": "bottleneck", "depths": [1, 2, 1, 1], "width": 4, "stem": "small"},
    "large basic": {"kind": "resnet", "block": "basic", "depths": [1, 1, 1, 1], "width": 8, "stem": "large"},
    "large bottleneck": {"kind": "resnet", "block": "bottleneck", "depths": [1, 1, 2], "width": 4, "stem": "large"},
}
Names = Callable[[str], str]


def lively(network: nn.Module) -> None:
    """Give the batch norms something to do, and put the network into evaluation mode."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.normal_()
    network.eval()


def source(kind: str = "small basic", classes: int = 10) -> Network:
    network = networks.build(ARCHITECTURES[kind], classes)
    lively(network)
    return network


def cifar_names(name: str) -> str:
    return re.sub(r"^fc\.", "linear.", name.replace(".downsample.", ".shortcut."))


def as_is(name: str) -> str:
    return name


def madrylab(network: nn.Module, names: Names = cifar_names, prefix: str = "module.model.") -> dict[str, Any]:
    """What `robustness.train` saves."""
    state: OrderedDict[str, Tensor] = OrderedDict()
    statistics = {"mean": torch.tensor(MEAN).view(3, 1, 1), "std": torch.tensor(STD).view(3, 1, 1)}
    for start in (prefix, "module.attacker.model."):
        state |= {start + names(name): tensor for name, tensor in network.state_dict().items()}
    for start in ("module.normalizer.new_", "module.attacker.normalize.new_"):
        state |= {start + name: tensor for name, tensor in statistics.items()}
    momentum = {0: {"momentum_buffer": torch.ones(3)}}
    return {"model": state, "optimizer": {"state": momentum}, "schedule": None, "epoch": 3, "amp": None}


def saved(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def logits(folder: ModelFolder, x: Tensor) -> Tensor:
    network = networks.build(folder.card.architecture, len(folder.card.classes))
    weights.fill(network, weights.read(folder.path / WEIGHTS), WEIGHTS)
    return _normalised(network.eval(), x, folder.card.mean, folder.card.std)


def _normalised(network: nn.Module, x: Tensor, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> Tensor:
    with torch.no_grad():
        return network((x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small are fastest so, and far so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "store" / "imported"


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_madrylab_checkpoint_keeps_its_logits_and_statistics(
    kind: str, tmp_path: Path, out: Path, images: Tensor
) -> None:
    network = source(kind, classes=9)
    file = saved(tmp_path / "a.pt", madrylab(network, cifar_names if "small" in kind else as_is))
    folder = import_checkpoint(file, out, name="borrowed")
    assert torch.equal(logits(folder, images), _normalised(network, images))
    assert dict(folder.card.architecture) == ARCHITECTURES[kind]
    assert (folder.card.mean, folder.card.std) == (MEAN, STD)
    assert folder.card.training["statistics"] == "checkpoint"
    assert folder.card.size == (32 if "small" in kind else 224)
    assert (folder.card.name, folder.card.role, folder.card.classes[8]) == ("borrowed", "robust", "class 8")


def test_older_madrylab_checkpoint_has_its_weights_under_state_dict(tmp_path: Path, out: Path, images: Tensor) -> None:
    network = source()
    content = madrylab(network)
    content["state_dict"] = content.pop("model")
    content["model"] = {"arch": "resnet18"}
    folder = import_checkpoint(saved(tmp_path / "a.pt", content), out)
    assert torch.equal(logits(folder, images), _normalised(network, images))


def test_nested_prefixes_are_stripped(tmp_path: Path, out: Path, images: Tensor) -> None:
    network = source()
    file = saved(tmp_path / "a.pt", madrylab(network, prefix="module.model.model."))
    assert torch.equal(logits(import_checkpoint(file, out), images), _normalised(network, images))


def test_prefixes_are_never_taken_out_of_the_middle_of_a_name(tmp_path: Path, out: Path) -> None:
    state = source().state_dict()
    state["layer1.model.conv1.weight"] = torch.ones(1)
    with pytest.raises(ModelError, match=r"found a tensor layer1\.model\.conv1\.weight"):
        import_checkpoint(saved(tmp_path / "a.pt", state), out)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model."])
@pytest.mark.parametrize("container", [None, "state_dict"])
def test_robustbench_checkpoint_keeps_its_logits(
    prefix: str, container: str | None, tmp_path: Path, out: Path, images: Tensor
) -> None:
    network = source("small bottleneck")
    state = {prefix + cifar_names(name): tensor for name, tensor in network.state_dict().items()}
    state[prefix + "mu"] = torch.tensor(MEAN).view(1, 3, 1, 1)
    state[prefix + "sigma"] = torch.tensor(STD).view(1, 3, 1, 1)
    folder = import_checkpoint(saved(tmp_path / "a.pt", {container: state} if container else state), out)
    assert torch.equal(logits(folder, images), _normalised(network, images))
    assert folder.card.classes == CIFAR10


def test_torchvision_state_dict_keeps_its_names_and_gets_imagenet_statistics(
    tmp_path: Path, out: Path, images: Tensor
) -> None:
    network = source("large bottleneck", classes=12)
    folder = import_checkpoint(saved(tmp_path / "resnet.pth", network.state_dict()), out)
    expected = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
    assert weights.read(folder.path / WEIGHTS).keys() == expected
    assert torch.equal(
        logits(folder, images), _normalised(network, images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    assert folder.card.training["statistics"] == "assumed: ImageNet"


def test_bare_safetensors_keeps_its_logits(tmp_path: Path, out: Path, images: Tensor) -> None:
    network = source("large basic")
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    folder = import_checkpoint(tmp_path / "a.safetensors", out, mean=MEAN, std=STD)
    assert torch.equal(logits(folder, images), _normalised(network, images))
    assert folder.card.training["statistics"] == "given"


class RicePreActResNet(nn.Module):
    """The network of Rice et al. 2020 as RobustBench writes it, two blocks a stage being one here."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        for i, width in enumerate(widths):
            before = widths[max(i - 1, 0)]
            block = nn.ModuleDict(
                {
                    "bn1": nn.BatchNorm2d(before),
                    "conv1": nn.Conv2d(before, width, 3, stride=2 if i else 1, padding=1, bias=False),
                    "bn2": nn.BatchNorm2d(width),
                    "conv2": nn.Conv2d(width, width, 3, padding=1, bias=False),
                }
            )
            if i:
                block["shortcut"] = nn.Sequential(nn.Conv2d(before, width, 1, stride=2, bias=False))
            self.add_module(f"layer{i + 1}", nn.ModuleList([block]))
        self.depth = len(widths)
        self.bn = nn.BatchNorm2d(widths[-1])
        self.linear = nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for i in range(self.depth):
            block: Any = self.get_submodule(f"layer{i + 1}.0")
            out = F.relu(block["bn1"](x))
            shortcut = block["shortcut"](out) if i else x
            x = block["conv2"](F.relu(block["bn2"](block["conv1"](out)))) + shortcut
        pooled = F.adaptive_avg_pool2d(F.relu(self.bn(x)), 1).flatten(1)
        return self.linear(pooled)  # type: ignore[no-any-return]


def test_pre_activation_checkpoint_keeps_its_logits(tmp_path: Path, out: Path, images: Tensor) -> None:
    network = RicePreActResNet((8, 16, 32))
    lively(network)
    folder = import_checkpoint(saved(tmp_path / "a.pt", network.state_dict()), out, mean=MEAN, std=STD)
    torch.testing.assert_close(logits(folder, images), _normalised(network, images), rtol=1e-5, atol=1e-6)
    assert dict(folder.card.architecture) == {"kind": "preact", "depths": [1, 1, 1], "width": 8}


def test_pre_activation_network_folds_and_refolds_without_changing_its_logits(images: Tensor) -> None:
    network = networks.build({"kind": "preact", "depths": [2, 2], "width": 8}, 10)
    lively(network)
    folded = networks.fold(network)
    with torch.no_grad():
        torch.testing.assert_close(folded(images), network(images), rtol=1e-5, atol=1e-5)
        for tensor in (*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())):
            tensor.add_(torch.rand_like(tensor), alpha=0.1)
        assert not torch.allclose(folded(images), network(images), rtol=1e-3, atol=1e-3)
        networks.refold(network, folded)
        torch.testing.assert_close(folded(images), network(images), rtol=1e-5, atol=1e-5)
    pairs = sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert pairs == 5  # the first of each of four blocks and the last of all have no convolution before them


class Calls:
    """Pickles as a call of `function` with `arguments`, the way an attacker would write it."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


class Restores(Calls):
    """The same, hidden in the state with which an innocent object is restored."""

    def __reduce__(self) -> Any:
        return OrderedDict, (), {"hook": Calls(*self.call[:1], *self.call[1])}


def hostile(marker: Path) -> dict[str, Calls]:
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "system": Calls(os.system, f"touch {marker}"),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "state": Restores(eval, code),
    }


@pytest.mark.parametrize("attack", ["system", "eval", "exec", "state"])
@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_checkpoint_runs_nothing_and_still_gives_its_weights(
    attack: str, zipped: bool, tmp_path: Path, out: Path, images: Tensor
) -> None:
    network = source()
    marker = tmp_path / "marker"
    content = {"args": hostile(marker)[attack], **madrylab(network), "schedule": hostile(marker)[attack]}
    file = saved(tmp_path / "a.pt", content, _use_new_zipfile_serialization=zipped)
    folder = import_checkpoint(file, out)
    assert not marker.exists()
    assert torch.equal(logits(folder, images), _normalised(network, images))
    torch.load(file, weights_only=False)
    assert marker.exists()  # the attack is a real one


def test_hostile_object_in_place_of_the_weights_is_refused_and_not_run(tmp_path: Path, out: Path) -> None:
    marker = tmp_path / "marker"
    for content in (hostile(marker)["system"], {"model": hostile(marker)["eval"]}):
        with pytest.raises(ModelError, match=r"holds no state dict; save model\.state_dict\(\)"):
            import_checkpoint(saved(tmp_path / "a.pt", content), out)
    assert not marker.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"(cposix\nsystem\nS'touch MARKER'\no.",
        b"(S'touch MARKER'\niposix\nsystem\n.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0ctouch MARKER\x85R.",
        b"cposix\nsystem\n(S'touch MARKER'\ntR.",
        b"}S'key'\ncposix\nsystem\n(S'touch MARKER'\ntRs.",
        b"cposix\nsystem\n(S'touch MARKER'\ntRN0.",
    ],
)
def test_no_instruction_of_a_pickle_calls_anything(
    program: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    load(io.BytesIO(program))
    assert not (tmp_path / "MARKER").exists()
    pickle.loads(program)
    assert (tmp_path / "MARKER").exists()  # pickle itself does call it


def test_names_in_a_pickle_stay_names() -> None:
    sys.modules.pop("antigravity", None)
    assert load(io.BytesIO(b"cantigravity\nfly\n.")) == Name("antigravity", "fly")
    assert "antigravity" not in sys.modules


def test_state_given_to_a_function_of_torch_does_not_reach_it() -> None:
    before = torch._utils._rebuild_tensor_v2.__defaults__
    program = b"ctorch._utils\n_rebuild_tensor_v2\n(N(dS'__defaults__'\n(I1\ntstb."
    assert load(io.BytesIO(program)) == Name("torch._utils", "_rebuild_tensor_v2")
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before
    pickle.loads(program)
    changed, torch._utils._rebuild_tensor_v2.__defaults__ = torch._utils._rebuild_tensor_v2.__defaults__, before
    assert changed == (1,)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_is_read_as_pickle_reads_it(protocol: int) -> None:
    shared = [1, -(2**70), 3.5, "ä\n", b"\x00\xff", None, True, False]
    data = {"a": shared, "b": (shared, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)), 3: {}, "o": OrderedDict(x=1, y=[])}
    stream = io.BytesIO(pickle.dumps(data, protocol) + b"rest")
    found = load(stream)
    assert isinstance(found, dict)
    if protocol < 3:  # has no bytes; they are the result of a call
        assert isinstance(found["a"].pop(4), Unknown)
        shared.pop(4)
    assert found == data
    assert stream.read() == b"rest"


def schedule(epoch: int) -> float:
    return 0.1**epoch


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_embedded_functions_and_classes_do_not_hide_the_weights(
    zipped: bool, protocol: int, tmp_path: Path, out: Path, images: Tensor
) -> None:
    network = source("small bottleneck")
    content = madrylab(network)
    content["schedule"] = schedule
    content["optimizer"] = [Path("a"), RicePreActResNet, {schedule: {1, 2}}, nn.Parameter(torch.ones(2))]
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
    file = saved(tmp_path / "a.pt", content, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(pickle.UnpicklingError):
            torch.load(file, weights_only=True)
    assert torch.equal(logits(import_checkpoint(file, out), images), _normalised(network, images))


def test_parameters_views_and_half_precision_are_recovered(tmp_path: Path, out: Path, images: Tensor) -> None:
    network = source()
    state: dict[str, object] = dict(network.state_dict())
    state["conv1.weight"] = nn.Parameter(network.state_dict()["conv1.weight"])
    state["layer1.0.conv1.weight"] = network.state_dict()["layer1.0.conv1.weight"].transpose(2, 3).contiguous().mT
    state["fc.bias"] = torch.cat([torch.zeros(5), network.fc.bias.detach()])[5:]
    state["layer1.0.conv2.weight"] = network.state_dict()["layer1.0.conv2.weight"].bfloat16()
    network.state_dict()["layer1.0.conv2.weight"].copy_(network.state_dict()["layer1.0.conv2.weight"].bfloat16())
    file = saved(tmp_path / "a.pt", {"model": state, "schedule": schedule})
    folder = import_checkpoint(file, out, mean=MEAN, std=STD)
    torch.testing.assert_close(logits(folder, images), _normalised(network, images), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("function", [None, schedule])
def test_legacy_format_keeps_its_logits(function: object, tmp_path: Path, out: Path, images: Tensor) -> None:
    network = source()
    content = {**madrylab(network), "schedule": function}
    file = saved(tmp_path / "a.pt", content, _use_new_zipfile_serialization=False)
    assert file.read_bytes()[:2] == b"\x80\x02"
    assert torch.equal(logits(import_checkpoint(file, out), images), _normalised(network, images))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("function", [None, schedule])
@pytest.mark.parametrize("share", [0.0005, 0.02, 0.5, 0.999])
def test_truncated_checkpoint_is_refused(
    zipped: bool, function: object, share: float, tmp_path: Path, out: Path
) -> None:
    content = {**madrylab(source()), "schedule": function}
    file = saved(tmp_path / "a.pt", content, _use_new_zipfile_serialization=zipped)
    data = file.read_bytes()
    file.write_bytes(data[: max(int(len(data) * share), 9)])
    with pytest.raises(ModelError, match=r"^checkpoint: .*damaged or cut short.*; download or copy it again\.$"):
        import_checkpoint(file, out)
    assert not out.exists()


def test_flipped_bytes_never_get_past_the_reader_as_another_error(tmp_path: Path, out: Path) -> None:
    content = {**madrylab(source()), "schedule": schedule}
    generator = torch.Generator().manual_seed(0)
    for zipped in (True, False):
        file = saved(tmp_path / "a.pt", content, _use_new_zipfile_serialization=zipped)
        data = bytearray(file.read_bytes())
        start = data.index(b"ccollections") - 10
        for i in range(16):
            position = start + int(torch.randint(4000, (1,), generator=generator))
            broken = bytearray(data)
            broken[position] ^= 1 << (i % 8)
            file.write_bytes(broken)
            try:
                import_checkpoint(file, out / f"{zipped}{i}")
            except ModelError as error:
                assert "checkpoint:" in str(error)  # noqa: PT017 (a flip in an unused part does no harm)


def _zip(path: Path, records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in records.items():
            archive.writestr(f"archive/{name}", data)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; download or copy it again"),
        (b"<!DOCTYPE html><html>", "neither of torch.save nor safetensors"),
        (pickle.dumps({"a": 1}), "a pickle, but not of torch.save"),
        (b"\x80\x02" + b"\xff" * 40, "damaged"),
        (b"PK\x03\x04" + b"\x00" * 40, "damaged"),
    ],
)
def test_file_that_is_no_checkpoint_is_refused(content: bytes, message: str, tmp_path: Path, out: Path) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        import_checkpoint(tmp_path / "a.pt", out)


def test_torchscript_and_compressed_archives_are_refused(tmp_path: Path, out: Path) -> None:
    script = _zip(tmp_path / "a.pt", {"data.pkl": b"\x80\x02N.", "constants.pkl": b"\x80\x02)."})
    with pytest.raises(ModelError, match="TorchScript"):
        import_checkpoint(script, out)
    bomb = _zip(tmp_path / "b.pt", {"data.pkl": b"\x80\x02N." + b"\x00" * 100_000}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelError, match="compressed"):
        import_checkpoint(bomb, out)


@pytest.mark.parametrize("function", [None, schedule])
def test_tensor_larger_than_its_storage_is_refused(function: object, tmp_path: Path, out: Path) -> None:
    state = dict(source().state_dict())
    state["conv1.weight"] = torch.zeros(1).expand(10**5, 3, 10**4, 10**4)
    with pytest.raises(ModelError, match="larger than its storage"):
        import_checkpoint(saved(tmp_path / "a.pt", {"model": state, "schedule": function}), out)


def test_two_networks_in_one_file_are_refused(tmp_path: Path, out: Path) -> None:
    state = source().state_dict()
    state |= {"model." + name: tensor + 1 for name, tensor in source().state_dict().items()}
    with pytest.raises(ModelError, match="two networks"):
        import_checkpoint(saved(tmp_path / "a.pt", state), out)


def test_nan_in_the_weights_is_refused(tmp_path: Path, out: Path) -> None:
    state = source().state_dict()
    state["layer2.0.bn1.weight"][0] = float("nan")
    with pytest.raises(ModelError, match=r"NaN or infinity in layer2\.0\.bn1\.weight"):
        import_checkpoint(saved(tmp_path / "a.pt", state), out)


def _other(state: dict[str, Tensor], **changes: tuple[int, ...] | None) -> dict[str, Tensor]:
    for name, shape in changes.items():
        key = name.replace("__", ".")
        state.pop(key, None)
        if shape is not None:
            state[key] = torch.zeros(shape)
    return state


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({"conv1.weight": torch.zeros(16, 3, 3, 3), "block1.layer.0.bn1.weight": torch.zeros(16)}, "a WideResNet"),
        ({"features.0.weight": torch.zeros(64, 3, 3, 3)}, "a VGG or AlexNet"),
        ({"weight": torch.zeros(2, 2)}, "a network whose tensors begin weight"),
        (_other(source().state_dict(), conv1__weight=(8, 3, 5, 5)), r"a stem of shape \(8, 3, 5, 5\)"),
        (_other(source().state_dict(), conv1__weight=(8, 1, 3, 3)), r"a stem of shape \(8, 1, 3, 3\)"),
        (_other(source().state_dict(), layer2__0__bn1__weight=None), r"layer2\.0\.bn1\.weight missing where \(16,\)"),
        (_other(source().state_dict(), layer1__0__se__weight=(8, 8)), r"a tensor layer1\.0\.se\.weight, unknown"),
        (_other(source().state_dict(), bn1__weight=None), "a pre-activation network without a batch norm"),
    ],
)
def test_another_architecture_is_named_beside_what_is_supported(
    state: dict[str, Tensor], found: str, tmp_path: Path, out: Path
) -> None:
    with pytest.raises(ModelError, match=rf"^checkpoint: supported are ResNets .*; found {found}"):
        import_checkpoint(saved(tmp_path / "a.pt", state), out)


def test_grouped_or_widened_bottlenecks_are_refused(tmp_path: Path, out: Path) -> None:
    state = _other(source("large bottleneck").state_dict(), layer1__0__conv2__weight=(4, 2, 3, 3))
    with pytest.raises(ModelError, match=r"found layer1\.0\.conv2\.weight \(4, 2, 3, 3\) where \(4, 4, 3, 3\) belongs"):
        import_checkpoint(saved(tmp_path / "a.pt", state), out)


def test_statistics_must_be_given_where_they_cannot_be_known(tmp_path: Path, out: Path) -> None:
    file = saved(tmp_path / "a.pt", source(classes=7).state_dict())
    with pytest.raises(InvalidInput, match="the checkpoint has no mean and std; give both") as caught:
        import_checkpoint(file, out)
    assert caught.value.field == "mean"
    assert import_checkpoint(file, out, mean=(0, 0, 0), std=(1, 1, 1)).card.std == (1.0, 1.0, 1.0)


def test_ten_classes_and_a_small_stem_are_taken_for_cifar10(tmp_path: Path, out: Path) -> None:
    card = import_checkpoint(saved(tmp_path / "a.pt", source().state_dict()), out).card
    assert (card.mean, card.std) == ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
    assert card.training["statistics"] == "assumed: CIFAR-10"
    assert (card.name, card.classes[3], card.training["imported_from"]) == ("imported", "cat", "a.pt")


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("mean", {"mean": (0.5, 0.5, 0.5), "std": STD}),
        ("std", {"mean": MEAN}),
        ("mean", {"std": STD}),
        ("std", {"mean": MEAN, "std": (0.2, 0.2, 0.0)}),
        ("mean", {"mean": (0.5, 0.5), "std": STD}),
        ("classes", {"classes": ["a", "b"]}),
        ("classes", {"classes": ["a"] * 10}),
        ("size", {"size": 4}),
        ("weights_format", {"weights_format": "fp8"}),
    ],
)
def test_wrong_argument_is_named_and_leaves_nothing_behind(
    field: str, options: dict[str, Any], tmp_path: Path, out: Path
) -> None:
    file = saved(tmp_path / "a.pt", madrylab(source()))
    with pytest.raises(InvalidInput) as caught:
        import_checkpoint(file, out, **options)
    assert caught.value.field == field
    assert [path.name for path in tmp_path.rglob("*")] == ["a.pt"]


def test_missing_file_is_named(tmp_path: Path, out: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no file") as caught:
        import_checkpoint(tmp_path / "nothing.pt", out)
    assert caught.value.field == "checkpoint"


def test_given_classes_and_size_are_kept(tmp_path: Path, out: Path) -> None:
    names = [f"bird {i}" for i in range(10)]
    card = import_checkpoint(saved(tmp_path / "a.pt", madrylab(source())), out, classes=names, size=64).card
    assert (card.classes, card.size, card.min_size, card.max_size) == (tuple(names), 64, 32, 128)


def test_occupied_folder_is_not_overwritten_and_an_empty_one_is_used(tmp_path: Path, out: Path) -> None:
    file = saved(tmp_path / "a.pt", madrylab(source()))
    out.mkdir(parents=True)
    assert import_checkpoint(file, out).path == out
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(InvalidInput, match="exists already") as caught:
        import_checkpoint(file, out)
    assert caught.value.field == "out"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_failure_while_writing_leaves_nothing_behind(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("robust_synthesis.importing.write_card", full)
    with pytest.raises(OSError, match="no space"):
        import_checkpoint(saved(tmp_path / "a.pt", madrylab(source())), out)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(("weights_format", "tolerance"), [("fp16", 2e-3), ("int8", 5e-2)])
def test_smaller_formats_keep_the_logits_nearly(
    weights_format: str, tolerance: float, tmp_path: Path, out: Path, images: Tensor
) -> None:
    network = source()
    file = saved(tmp_path / "a.pt", madrylab(network))
    folder = import_checkpoint(file, out, weights_format=weights_format)
    expected = _normalised(network, images)
    error = (logits(folder, images) - expected).norm() / expected.norm()
    assert 0 < error < tolerance
    assert (folder.path / WEIGHTS).stat().st_size < 0.75 * sum(4 * t.numel() for t in network.state_dict().values())
