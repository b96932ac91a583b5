"""``make_chest_phantoms``: patients, views, labels and captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Integral

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from sk_medsiglip.datasets._anatomy import (
    Body,
    Canvas,
    View,
    add_bones,
    draw_chest,
    ramp,
    sample_body,
)
from sk_medsiglip.datasets._findings import (
    FACTS,
    FINDINGS,
    Finding,
    draw_finding,
    sample_findings,
    state_facts,
    write_caption,
)

Range = tuple[float, float]

_DESCR = """\
Chest-radiograph phantoms
-------------------------

Drawings, not patients: every image is computed from a few formulas and random numbers.
They are intended for trying out and testing software. Results on them have no medical
meaning, and they must not be used to evaluate a medical device.

:Number of images: {n_images}, of {n_patients} invented patients
:Image size: {size} x {size}, {dtype}
:Findings: {findings}

Each patient has its own build and findings, shared by all of its views; each view has
its own position, exposure and noise. The size of findings varies from barely visible to
obvious. The smallest sixth counts in ``target`` like the rest, but ``captions`` name
only a sign of it ("a blunted costophrenic angle"), as reports do.
"""


def make_chest_phantoms(
    n_samples: int = 100,
    *,
    findings: Sequence[str] | None = None,
    image_size: int = 128,
    views_per_patient: int | tuple[int, int] = (1, 3),
    dtype: str = "uint8",
    prevalence: float = 0.25,
    habitus: Range = (0.0, 1.0),
    rotation: Range = (-6.0, 6.0),
    gamma: Range = (0.75, 1.3),
    exposure: Range = (0.85, 1.1),
    noise: Range = (0.005, 0.03),
    return_masks: bool = False,
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
) -> Bunch:
    """Draw chest-radiograph phantoms with findings, patients and captions.

    They are drawings, not patients, for examples and tests that need labelled images of
    medical appearance without using real ones. A phantom takes about 3 ms at 128
    pixels.

    Parameters
    ----------
    n_samples : int, default=100
        Number of images.
    findings : sequence of str or None, default=None
        Findings that may occur, in the order of the columns of ``target``. By default,
        all: cardiomegaly, effusion, pneumothorax, consolidation, nodule and device.
    image_size : int, default=128
        Height and width in pixels. The demonstration checkpoint reads 128; the time is
        proportional to the number of pixels.
    views_per_patient : int or (int, int), default=(1, 3)
        Number of images per patient, or its range. Images of a patient share findings
        and build, so they must be split by ``groups``.
    dtype : {"uint8", "uint16"}, default="uint8"
        Grey values from 0 to 255, or from 0 to 65,535.
    prevalence : float, default=0.25
        Share of patients with each finding; findings are independent.
    habitus : (float, float), default=(0, 1)
        Range of body build: 0 is slender, 1 is heavy, larger values are heavier.
    rotation : (float, float), default=(-6, 6)
        Range of the rotation of the image, in degrees.
    gamma : (float, float), default=(0.75, 1.3)
        Range of the exponent of the tone curve; above 1 darkens the middle greys.
    exposure : (float, float), default=(0.85, 1.1)
        Range of the factor applied to the brightness.
    noise : (float, float), default=(0.005, 0.03)
        Range of the standard deviation of the noise, as a fraction of white.
    return_masks : bool, default=False
        Whether to return a mask of each finding, which takes ``n_findings`` bytes per
        pixel.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the random number generator. An int gives the same phantoms in every
        call; a larger ``n_samples`` then only adds patients and views at the end.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the following attributes.

        images : ndarray of shape (n_samples, image_size, image_size)
            Grey images of type ``dtype``.
        target : ndarray of shape (n_samples, n_findings)
            1 where the finding is present, else 0.
        target_names : list of str
            The findings, one for each column of ``target``.
        groups : ndarray of shape (n_samples,)
            Identifier of the patient, such as ``"PHANTOM0001"``.
        captions : list of str
            A few sentences in the style of reports. They are true of the image, but not
            complete.
        facts : DataFrame of shape (n_samples, n_facts)
            Statements that a report could make: 1 is true, 0 false, -1 uncertain.
        masks : ndarray of shape (n_samples, n_findings, image_size, image_size)
            Boolean masks of findings; only with ``return_masks=True``.
        DESCR : str
            Description of the images, and the limits of their use.

    Raises
    ------
    ValueError
        If a finding is unknown or a number is out of range.

    Examples
    --------
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> phantoms = make_chest_phantoms(6, random_state=0)
    >>> phantoms.images.shape, phantoms.images.dtype
    ((6, 128, 128), dtype('uint8'))
    >>> phantoms.target_names
    ['cardiomegaly', 'effusion', 'pneumothorax', 'consolidation', 'nodule', 'device']
    >>> phantoms.target.shape, len(phantoms.captions)
    ((6, 6), 6)
    """
    names = _check_findings(findings)
    low_views, high_views = _check_views(views_per_patient)
    _check_numbers(n_samples, image_size, dtype, prevalence)
    _check_ranges(
        habitus=habitus, rotation=rotation, gamma=gamma, exposure=exposure, noise=noise
    )
    seed = _seed(random_state)
    white = np.iinfo(dtype).max

    images = np.empty((n_samples, image_size, image_size), dtype=dtype)
    masks = np.zeros(
        (n_samples if return_masks else 0, len(names), image_size, image_size), bool
    )
    target = np.zeros((n_samples, len(names)), dtype=np.int64)
    facts = np.empty((n_samples, len(FACTS)), dtype=np.int8)
    captions, groups = [], []
    for patient, rng, rows in _patients(n_samples, low_views, high_views, seed):
        found = sample_findings(rng, names, prevalence)
        heart = found.get("cardiomegaly")
        body = sample_body(rng, habitus, None if heart is None else heart.size)
        for row in rows:
            view = _sample_view(rng, image_size, rotation)
            canvas, places = _draw(body, view, found, rng)
            image = _expose(canvas, rng, gamma, exposure, noise)
            # Round here, so that uint8 and uint16 show the same image.
            np.multiply(image, np.float32(white), out=image)
            images[row] = np.rint(image, out=image)
            facts[row] = state_facts(found)
            captions.append(write_caption(facts[row], rng, names))
            groups.append(f"PHANTOM{patient + 1:04d}")
            for column, name in enumerate(names):
                target[row, column] = name in found
                if return_masks and name in found:
                    masks[row, column] = places[name]

    bunch = Bunch(
        images=images,
        target=target,
        target_names=names,
        groups=np.array(groups, dtype=object),
        captions=captions,
        facts=pd.DataFrame(facts, columns=list(FACTS)),
        DESCR=_DESCR.format(
            n_images=n_samples,
            n_patients=len(set(groups)),
            size=image_size,
            dtype=dtype,
            findings=", ".join(names),
        ),
    )
    if return_masks:
        bunch.masks = masks
    return bunch


def _patients(
    n_samples: int, low: int, high: int, seed: int
) -> Iterator[tuple[int, np.random.Generator, range]]:
    """Yield the number, the random number generator and the rows of each patient.

    With one generator per patient, a patient does not depend on ``n_samples``.
    """
    patient = row = 0
    while row < n_samples:
        rng = np.random.default_rng([seed, patient])
        views = int(rng.integers(low, high + 1))
        stop = min(row + views, n_samples)
        yield patient, rng, range(row, stop)
        patient, row = patient + 1, stop


def _sample_view(rng: np.random.Generator, size: int, rotation: Range) -> View:
    return View(
        size=size,
        rotation=rng.uniform(*rotation),
        zoom=rng.uniform(0.84, 1.0),
        shift=(rng.uniform(-0.06, 0.06), rng.uniform(-0.06, 0.06)),
        breath=rng.uniform(-0.06, 0.06),
    )


def _draw(
    body: Body, view: View, found: dict[str, Finding], rng: np.random.Generator
) -> tuple[Canvas, dict[str, np.ndarray]]:
    canvas = draw_chest(body, view, rng)
    # Air displaces vessels but not bones, so findings in the lung are drawn before the
    # bones; devices are drawn last.
    in_lung = ("cardiomegaly", "consolidation", "nodule", "pneumothorax", "effusion")
    places = {
        name: draw_finding(canvas, found[name], rng)
        for name in in_lung
        if name in found
    }
    add_bones(canvas, rng)
    if "device" in found:
        places["device"] = draw_finding(canvas, found["device"], rng)
    _add_clutter(canvas, rng)
    return canvas, places


def _add_clutter(canvas: Canvas, rng: np.random.Generator) -> None:
    """Add meaningless objects that are common on films: a side mark, buttons."""
    size = canvas.x.shape[0]
    if rng.random() < 0.6:
        height, width = round(0.06 * size), round(0.04 * size)
        top, left = round(rng.uniform(0.02, 0.08) * size), round(0.04 * size)
        if rng.random() < 0.5:
            left = size - left - width
        canvas.density[top : top + height, left : left + width] += 0.5
    if rng.random() < 0.15:
        for sign in (-1, 1):
            distance = np.hypot(canvas.x - sign * 0.62, canvas.y + 0.62)
            canvas.density += 0.25 * ramp(0.018 - np.abs(distance - 0.035), 0.02)


def _expose(
    canvas: Canvas,
    rng: np.random.Generator,
    gamma: Range,
    exposure: Range,
    noise: Range,
) -> np.ndarray:
    image = canvas.density * np.float32(rng.uniform(*exposure))
    fall_off = np.float32(rng.uniform(-0.06, 0.06))
    image *= 1 + fall_off * canvas.x
    np.clip(image, 0, 1, out=image)
    np.power(image, np.float32(rng.uniform(*gamma)), out=image)
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    image += grain * np.float32(rng.uniform(*noise))
    return np.clip(image, 0, 1, out=image)


def _check_findings(findings: Sequence[str] | None) -> list[str]:
    if findings is None:
        return list(FINDINGS)
    names = [findings] if isinstance(findings, str) else list(findings)
    unknown = [name for name in names if name not in FINDINGS]
    if unknown or not names or len(set(names)) < len(names):
        raise ValueError(
            f"findings must be distinct names from {list(FINDINGS)}, got {names}."
        )
    return names


def _check_views(views: int | tuple[int, int]) -> tuple[int, int]:
    low, high = views if isinstance(views, Sequence) else (views, views)
    if not 1 <= low <= high:
        raise ValueError(
            "views_per_patient must be a positive int or a pair (low, high) with "
            f"1 <= low <= high, got {views!r}."
        )
    return int(low), int(high)


def _check_numbers(n_samples: int, size: int, dtype: str, prevalence: float) -> None:
    if not isinstance(n_samples, Integral) or n_samples < 1:
        raise ValueError(f"n_samples must be a positive int, got {n_samples!r}.")
    if not isinstance(size, Integral) or size < 16:
        raise ValueError(f"image_size must be an int of at least 16, got {size!r}.")
    if dtype not in ("uint8", "uint16"):
        raise ValueError(f"dtype must be 'uint8' or 'uint16', got {dtype!r}.")
    if not 0 <= prevalence <= 1:
        raise ValueError(f"prevalence must lie in [0, 1], got {prevalence!r}.")


def _check_ranges(**ranges: Range) -> None:
    for name, (low, high) in ranges.items():
        if not low <= high:
            raise ValueError(
                f"{name} must be a pair (low, high) with low <= high, got "
                f"{(low, high)!r}."
            )


def _seed(
    random_state: int | np.random.RandomState | np.random.Generator | None,
) -> int:
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if random_state is None or isinstance(random_state, np.random.Generator):
        return int(np.random.default_rng(random_state).integers(2**32))
    if random_state < 0:
        raise ValueError(f"random_state must not be negative, got {random_state}.")
    return int(random_state)
