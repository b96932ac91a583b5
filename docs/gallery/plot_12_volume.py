"""
From a study of many slices to one row
======================================

``MedSigLIPVolumeEmbedder`` takes slices evenly, embeds each as an image, and pools
their rows. ``read_study`` shows the very slices that the model gets.
"""

# %%
# A drawn volume in Hounsfield units, 40 slices of 96 by 96 pixels: a body of soft
# tissue, lungs of air, and a ball of blood in some slices.

import matplotlib.pyplot as plt
import numpy as np

from sk_medsiglip import MedSigLIPEmbedder, MedSigLIPVolumeEmbedder
from sk_medsiglip.images import read_study

z, y, x = np.mgrid[-1:1:40j, -1:1:96j, -1:1:96j]
volume = np.full(z.shape, -1000, np.int16)
volume[(x / 0.9) ** 2 + (y / 0.7) ** 2 < 1] = 40
for side in (-0.4, 0.4):
    volume[((x - side) / 0.3) ** 2 + (y / 0.45) ** 2 + (z / 0.9) ** 2 < 1] = -850
volume[(x + 0.1) ** 2 + (y - 0.3) ** 2 + (z - 0.4) ** 2 < 0.03] = 65

# %%
# ``intensity="ct"`` says that an array is in Hounsfield units; DICOM says so itself.

slices = read_study(volume, n_slices=8, intensity="ct")
figure, axes = plt.subplots(2, 4, figsize=(8, 4.3), layout="constrained")
figure.suptitle("Eight slices of one study, as the model sees them")
for ax, picture in zip(axes.flat, slices, strict=True):
    ax.imshow(picture)
    ax.axis("off")

# %%
# One row a study. The default of 85 slices is that of Google's CT example.

embedder = MedSigLIPEmbedder("demo", intensity="ct")
volumes = MedSigLIPVolumeEmbedder(embedder, n_slices=8, pooling="mean")
print(volumes.transform([volume, volume[::-1]]).shape)
