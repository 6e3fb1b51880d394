"""Checkpoint files as state dicts: torch.save (zip and legacy), dill-pickled or not, and safetensors.

torch's own restricted reader goes first. What it refuses, be it for an embedded function or for a hostile one, is read
by `inert_pickle`, which runs nothing and recovers the tensors.
"""

from __future__ import annotations

import io
import math
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..engine import weights
from ..errors import ModelError
from . import inert_pickle
from .inert_pickle import Storage, StoredTensor

CONTAINERS = ("model", "state_dict", "model_state_dict", "net", "last")
"""Keys under which training scripts keep a state dict, most specific first."""
DEPTH = 3
"""How many of them may lie inside each other."""
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read(path: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint, in fp32, under the names it has there. Nothing in the file is executed.

    Raises ModelError for a file that is damaged, not a checkpoint, or without a state dict.
    """
    with path.open("rb") as file:
        head = file.read(9)
    if not head:
        raise ModelError(f"checkpoint: {path} is empty; download or copy it again.")
    if head[4:] == b"\0\0\0\0{":  # the upper half of the header's length, and its first character
        return weights.read(path)
    if not head.startswith((b"PK", b"\x80")):
        raise ModelError(
            f"checkpoint: {path} is neither of torch.save nor safetensors; give a .pt, .ckpt or .safetensors."
        )
    try:
        state = _load(path)
    except Exception:  # torch.load raises nearly anything for a file that it refuses or finds damaged
        state = _recover(path)
    if broken := [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]:
        raise ModelError(f"checkpoint: {path} holds NaN or infinity in {broken[0]}; take one from earlier in training.")
    return state


def _load(path: Path) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols and storages, which no user of ours can act on
        found = torch.load(path, map_location="cpu", weights_only=True)
    return {name: _fp32(tensor) for name, tensor in _state_dict(found, path).items()}


def _recover(path: Path) -> dict[str, Tensor]:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _recover_zip(archive, path)
        return _recover_legacy(path)
    except ModelError:
        raise
    except Exception as error:  # a file made to harm can break any of the assumptions that reading it rests on
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"checkpoint: {path} is damaged or cut short ({reason}); download or copy it again."
        ) from error


def _recover_zip(archive: zipfile.ZipFile, path: Path) -> dict[str, Tensor]:
    records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    if "constants.pkl" in records:
        raise ModelError(f"checkpoint: {path} is a TorchScript program; save the model's state_dict() instead.")
    if any(info.compress_type != zipfile.ZIP_STORED for info in records.values()):
        raise ValueError("compressed records, which torch.save never writes")
    if "byteorder" in records and archive.read(records["byteorder"]).decode() != sys.byteorder:
        raise ValueError("numbers in another byte order")
    root = inert_pickle.load(io.BytesIO(archive.read(records["data.pkl"])))
    return _tensors(_state_dict(root, path), lambda storage: archive.read(records[f"data/{storage.key}"]))


def _recover_legacy(path: Path) -> dict[str, Tensor]:
    """The layout of torch before 1.6: pickles of magic, version, system, object and storage keys, then the storages."""
    data = memoryview(path.read_bytes())
    stream = io.BytesIO(data)
    if inert_pickle.load(stream) != LEGACY_MAGIC:
        raise ModelError(
            f"checkpoint: {path} is a pickle, but not of torch.save; save the state_dict() with torch.save."
        )
    inert_pickle.load(stream)
    inert_pickle.load(stream)
    storages: dict[str, Storage] = {}
    root = inert_pickle.load(stream, storages)
    keys = inert_pickle.load(stream)
    if not isinstance(keys, list):
        raise ValueError("no list of storages")
    blobs: dict[str, memoryview] = {}
    for key in keys:
        start = stream.tell() + 8  # behind the storage's length, which the pickle has said already
        end = start + storages[key].length * DTYPES[storages[key].kind].itemsize
        blobs[key] = data[start:end]
        stream.seek(end)
    return _tensors(_state_dict(root, path), lambda storage: blobs[storage.key])


def _state_dict(root: object, path: Path) -> dict[str, Any]:
    """The tensors of a checkpoint's state dict: under one of CONTAINERS, or else `root` itself."""
    if state := _search(root, DEPTH):
        return state
    raise ModelError(f"checkpoint: {path} holds no state dict; save model.state_dict() and import that.")


def _search(root: object, depth: int) -> dict[str, Any]:
    if not isinstance(root, dict):
        return {}
    for name in CONTAINERS if depth else ():
        if state := _search(root.get(name), depth - 1):
            return state
    return {k: v for k, v in root.items() if isinstance(k, str) and isinstance(v, (Tensor, StoredTensor))}


def _tensors(state: Mapping[str, StoredTensor], fetch: Callable[[Storage], bytes | memoryview]) -> dict[str, Tensor]:
    arrays: dict[str, Tensor] = {}
    tensors = {}
    for name, tensor in state.items():
        storage = tensor.storage
        if storage.key not in arrays:
            arrays[storage.key] = _array(storage, fetch(storage))
        if not all(isinstance(n, int) and n >= 0 for n in (*tensor.size, *tensor.stride, tensor.offset)):
            raise ValueError(f"{name} has an impossible shape")
        tensors[name] = _fp32(arrays[storage.key].as_strided(tensor.size, tensor.stride, tensor.offset))
    return tensors


def _array(storage: Storage, data: bytes | memoryview) -> Tensor:
    dtype = DTYPES[storage.kind]
    if len(data) != storage.length * dtype.itemsize:
        raise ValueError(f"storage {storage.key} has {len(data)} bytes for {storage.length} numbers")
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)


def _fp32(tensor: Tensor) -> Tensor:
    """Raises ValueError for a tensor that repeats its storage: a few bytes could stand for terabytes."""
    if math.prod(tensor.shape) * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} is larger than its storage")
    return tensor.detach().float().contiguous()
