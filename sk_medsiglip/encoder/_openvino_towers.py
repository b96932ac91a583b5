"""The towers run by OpenVINO, which is faster than torch on many CPUs.

The input of the graph is uint8 pixels: moving axes and scaling are part of it. A
conversion takes a minute and the memory of a whole checkpoint, so it is kept on disk,
in a folder per checkpoint, numeric type and version of OpenVINO, and another one per
grid of cells. A folder appears only when it is complete. A digest of every file is
checked before it is used.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from blake3 import blake3
from joblib import cpu_count
from numpy.typing import NDArray

from sk_medsiglip._files import new_folder
from sk_medsiglip._json import read_json
from sk_medsiglip._optional import import_optional
from sk_medsiglip.encoder._checkpoints import Checkpoint, find_checkpoint
from sk_medsiglip.encoder._image_processor import pixel_scaling
from sk_medsiglip.encoder._pooling_head import embed_pixels
from sk_medsiglip.encoder._torch_towers import load_network, quiet_transformers
from sk_medsiglip.exceptions import CacheWarning, CheckpointError, ForkedProcessError

# Increase it whenever a checkpoint is converted differently than before.
_VERSION = 3

_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
_IMAGE, _TEXT, _CELLS = ("image", "text", "cells")
_FACTS = "facts.json"

# Graphs by name, and facts about the checkpoint such as its logit scale.
_Converted: TypeAlias = tuple[dict[str, Any], dict[str, Any]]

_FORKED = (
    "This worker was forked after OpenVINO was used, and its threads do not "
    "survive a fork. Start workers with spawn or loky "
    '(joblib.parallel_config(backend="loky")), embed before forking so that the cache '
    'holds every row, or use engine="torch" in the workers.'
)

# The process that started OpenVINO's threads, which do not survive a fork.
_started_in: int | None = None


class OpenVINOTowers:
    """Both towers on the CPU; see :class:`Towers`."""

    engine = "openvino"
    device = "cpu"

    def __init__(
        self, checkpoint: Checkpoint, dtype: str, kept_in: Path | None
    ) -> None:
        self.dtype = dtype
        self._checkpoint = checkpoint
        self._kept_in = kept_in
        self._pid = os.getpid()
        self._core = _core()
        models, facts = self._models(_convert)
        self.logit_scale = facts["logit_scale"]
        self.logit_bias = facts["logit_bias"]
        self._image = self._compile(models[_IMAGE])
        self._text = self._compile(models[_TEXT])
        self._cells: dict[int, Any] = {}

    def send(self, values: NDArray) -> NDArray:
        """Copy an array to the device."""
        if self._pid != os.getpid():
            raise ForkedProcessError(_FORKED)
        return np.ascontiguousarray(values)

    def run_images(
        self, sent: NDArray[np.uint8], grid: int | None = None
    ) -> NDArray[np.float32]:
        """Compute the vectors of RGB pixels (n, size, size, 3), uint8."""
        if grid is None:
            return self._image(sent)[0]
        if grid not in self._cells:
            models, _ = self._models(partial(_convert_cells, grid=grid), grid)
            self._cells[grid] = self._compile(models[_CELLS])
        return self._cells[grid](sent)[0]

    def run_texts(self, sent: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute the vectors of token ids (n, text_tokens), int64."""
        return self._text(sent)[0]

    def fetch(self, result: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return computed vectors."""
        return result

    def _compile(self, model: Any) -> Any:
        return self._core.compile_model(model, "CPU", _properties(self.dtype))

    def _models(
        self, convert: Callable[[Checkpoint], _Converted], grid: int | None = None
    ) -> _Converted:
        """Return graphs and facts, from disk if they are or can be kept there."""
        if self._kept_in is None:
            return convert(self._checkpoint)
        folder = converted_folder(self._kept_in, self._checkpoint, self.dtype, grid)
        facts = _load_converted(folder)
        if facts is None:
            models, facts = convert(self._checkpoint)
            try:
                _store_converted(folder, partial(_write, models, self.dtype), facts)
            except (OSError, RuntimeError) as error:  # OpenVINO raises the latter
                warnings.warn(
                    "The converted checkpoint is not kept, so every process converts "
                    f"it again: {self._kept_in} cannot be written ({error}).",
                    CacheWarning,
                    stacklevel=2,
                )
                return models, facts
        # Weights read from disk are memory-mapped, so workers share their memory.
        paths = sorted(folder.glob("*.xml"))
        return {path.stem: self._core.read_model(path) for path in paths}, facts


def cpu_has_bfloat16() -> bool:
    """Return whether this CPU multiplies in bfloat16, fast or not."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def converted_folder(
    kept_in: Path, checkpoint: Checkpoint, dtype: str, grid: int | None = None
) -> Path:
    """Return the folder of a converted checkpoint, which may not exist yet."""
    openvino = _openvino()
    version = openvino.__version__.partition("-")[0]
    cells = "" if grid is None else f"-grid{grid}"
    name = f"{_VERSION}-openvino-{version}-{dtype}-{checkpoint.revision}{cells}"
    return kept_in / name


def _openvino() -> Any:
    # Its import and its converter report to an analytics host, unless the telemetry
    # module is missing. If that was imported before, its sender is disabled.
    telemetry = sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    if telemetry is not None:
        sender = importlib.import_module("openvino_telemetry.utils.sender")
        sender.TelemetrySender.send = lambda *args: None
    return import_optional("openvino", extra="openvino", purpose='engine="openvino"')


def _core() -> Any:
    global _started_in
    if _started_in not in (None, os.getpid()):
        raise ForkedProcessError(_FORKED)
    core = _openvino().Core()
    _started_in = os.getpid()
    return core


def _properties(dtype: str) -> dict[str, Any]:
    # joblib and others limit the cores of their workers with this variable.
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[dtype],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": int(threads) if threads.isdigit() else cpu_count(),
        # With pinning, the threads of several processes would share the first cores.
        "ENABLE_CPU_PINNING": False,
    }


def _write(models: dict[str, Any], dtype: str, folder: Path) -> None:
    for name, model in models.items():
        _openvino().save_model(
            model, folder / f"{name}.xml", compress_to_fp16=dtype == "bfloat16"
        )


def _convert(checkpoint: Checkpoint) -> _Converted:
    """Return both towers as OpenVINO graphs, and the scale and bias of logits."""
    import torch

    network = load_network(checkpoint, "float32")

    class TextTower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = network.text_model

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.tower(input_ids=input_ids).pooler_output

    tokens = torch.ones((2, checkpoint.text_tokens), dtype=torch.int64)
    models = {
        _IMAGE: _trace_image_tower(checkpoint, network, None),
        _TEXT: _trace(TextTower(), tokens),
    }
    return models, {
        "logit_scale": float(network.logit_scale.detach().exp()),
        "logit_bias": float(network.logit_bias.detach()),
    }


def _convert_cells(checkpoint: Checkpoint, *, grid: int) -> _Converted:
    """Return the image tower for rows and cells as an OpenVINO graph."""
    # Weights may be missing here if the towers were converted before.
    whole = find_checkpoint(checkpoint.model, checkpoint.revision)
    network = load_network(whole, "float32")
    return {_CELLS: _trace_image_tower(whole, network, grid)}, {}


def _trace_image_tower(checkpoint: Checkpoint, network: Any, grid: int | None) -> Any:
    import torch

    scale, shift = map(torch.tensor, pixel_scaling(checkpoint.folder))

    class ImageTower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = network.vision_model

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            values = (pixels.to(torch.float32) * scale - shift).permute(0, 3, 1, 2)
            return embed_pixels(self.tower, values, grid)

    size = checkpoint.image_size
    pixels = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    return _trace(ImageTower(), pixels)


def _trace(tower: Any, example: Any) -> Any:
    import torch

    openvino = _openvino()
    any_number = openvino.PartialShape([-1, *example.shape[1:]])
    with torch.no_grad(), warnings.catch_warnings(), quiet_transformers():
        # Lengths and sizes are constants of a checkpoint, so tracing may fix them.
        warnings.simplefilter("ignore")
        return openvino.convert_model(
            tower.eval(), example_input=example, input=[any_number]
        )


def _store_converted(
    folder: Path, write: Callable[[Path], None], facts: dict[str, Any]
) -> None:
    """Write a conversion to its folder, atomically."""
    # Only the owner may open it. If another process was faster, its result is kept.
    with new_folder(folder, mode=0o700, replace=False) as scratch:
        write(scratch)
        files = {path.name: _digest(path) for path in sorted(scratch.iterdir())}
        whole: dict[str, Any] = {"files": files, "facts": facts}
        whole["digest"] = _digest_of_facts(whole)
        (scratch / _FACTS).write_text(json.dumps(whole, indent=2), "utf-8")


def _load_converted(folder: Path) -> dict[str, Any] | None:
    """Return the facts of a stored conversion, or None if there is none."""
    if not folder.is_dir():
        return None
    try:
        whole = read_json(
            folder / _FACTS, {"files": dict, "facts": dict, "digest": str}
        )
    except (FileNotFoundError, ValueError):
        raise CheckpointError(_damaged(folder, _FACTS)) from None
    if _digest_of_facts(whole) != whole["digest"]:
        raise CheckpointError(_damaged(folder, _FACTS))
    for name, digest in whole["files"].items():
        path = folder / name
        if not path.is_file() or _digest(path) != digest:
            raise CheckpointError(_damaged(folder, name))
    return whole["facts"]


def _digest_of_facts(whole: dict[str, Any]) -> str:
    """Return the digest of a record, in which a flipped bit would scale all logits."""
    said = json.dumps([whole["files"], whole["facts"]], sort_keys=True)
    return blake3(said.encode()).hexdigest()


def _digest(path: Path) -> str:
    return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()


def _damaged(folder: Path, name: str) -> str:
    return (
        f"The converted model in {folder} is damaged: {name} has changed since it was "
        "written. Delete that folder; it is created again from the checkpoint."
    )
