"""
CT: three windows as red, green and blue
========================================

MedSigLIP saw CT as colours: a wide window in red, soft tissue in green, brain in blue.
``intensity="auto"`` does that for DICOM CT by itself.
"""

# %%
# A slice of a CT that ships with pydicom, 128 by 128 pixels.

import matplotlib.pyplot as plt
from pydicom.data import get_testdata_file

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.images import CTWindows, Window, read_image

file = get_testdata_file("CT_small.dcm")
pixels = read_image(file)

# %%
# The three channels are three windows, in Hounsfield units; a window of your own
# replaces all of them.

print(CTWindows())
figure, axes = plt.subplots(1, 5, figsize=(11, 2.7), layout="constrained")
figure.suptitle("One CT slice, as the model gets it and channel by channel")
titles = [
    "all three",
    "red\n-1024 to 1024 HU",
    "green\n-135 to 215 HU",
    "blue\n0 to 80 HU",
    "Window(40, 400)",
]
pictures = [
    pixels,
    *pixels.transpose(2, 0, 1),
    read_image(file, intensity=Window(40, 400)),
]
for ax, picture, title in zip(axes, pictures, titles, strict=True):
    ax.imshow(picture, cmap="gray")
    ax.set_title(title, fontsize=9)
    ax.axis("off")

# %%
# The embedder takes the same parameter, as part of the recipe under which files are
# remembered.

embedder = MedSigLIPEmbedder("demo", intensity=CTWindows(blue=(0, 120)))
print(embedder.transform([file]).shape)
