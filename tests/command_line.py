"""The command line as its tests call it, and a small collection of drawn images."""

import pandas as pd
from PIL import Image
from typer.testing import CliRunner

from sk_medsiglip.cli import app
from sk_medsiglip.datasets import make_chest_phantoms


def run(*arguments, code=0):
    """Run a command; return all that it prints, on one line."""
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    said = result.stdout + result.stderr
    assert result.exit_code == code, said
    return " ".join(said.split())


def write_collection(folder, n_images, seed, **columns):
    """Write drawn images, and labels.csv with their labels and patients."""
    phantoms = make_chest_phantoms(n_images, random_state=seed)
    table = pd.DataFrame(phantoms.target, columns=phantoms.target_names)
    table.insert(0, "path", [f"{i}.png" for i in range(n_images)])
    table.insert(1, "patient", phantoms.groups)
    table = table.assign(caption=phantoms.captions, **columns)
    for path, image in zip(table["path"], phantoms.images, strict=True):
        Image.fromarray(image).save(folder / path)
    table.to_csv(folder / "labels.csv", index=False)
    return table
