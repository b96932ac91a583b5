"""The image tower of a checkpoint as an ONNX graph."""

from __future__ import annotations

import os
import warnings
from typing import Any

from sk_medsiglip._optional import import_optional
from sk_medsiglip.encoder._checkpoints import find_checkpoint
from sk_medsiglip.encoder._image_processor import pixel_scaling
from sk_medsiglip.encoder._pooling_head import embed_pixels
from sk_medsiglip.encoder._torch_towers import load_network


def export_image_tower(
    model: str | os.PathLike[str],
    revision: str | None = None,
    *,
    image_name: str = "images",
    row_name: str = "rows",
    opset: int = 18,
) -> Any:
    """Return an ONNX model that maps images, at the size of the model, to rows.

    Parameters
    ----------
    model : str or path-like
        Name or folder of the model.
    revision : str or None, default=None
        Revision of the model on the hub.
    image_name : str, default="images"
        Name of the input, (n, image_size, image_size, 3), uint8.
    row_name : str, default="rows"
        Name of the output, (n, embedding_dim), float32, not normalised.
    opset : int, default=18
        Version of the ONNX operators.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    MissingDependencyError
        If onnx or onnxscript is not installed.
    ModelAccessError, CheckpointError
        If the model is not available or is damaged.
    """
    for library in ("onnx", "onnxscript"):
        import_optional(library, extra="onnx", purpose="Writing an ONNX file")
    import torch

    checkpoint = find_checkpoint(model, revision)
    vision = load_network(checkpoint, "float32").vision_model
    scale, shift = (
        torch.tensor(values).view(1, 3, 1, 1)
        for values in pixel_scaling(checkpoint.folder)
    )

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision = vision

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            values = images.permute(0, 3, 1, 2).to(torch.float32)
            return embed_pixels(self.vision, values * scale - shift)

    size = checkpoint.image_size
    # Two images, since the exporter would treat a length of 1 as a constant.
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        # Libraries announce future changes of their own.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            Tower().eval(),
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=[image_name],
            output_names=[row_name],
            dynamic_shapes={"images": {0: torch.export.Dim("n_images")}},
        )
    assert program is not None  # None only if a file is named
    return program.model_proto
