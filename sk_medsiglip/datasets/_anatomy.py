"""The drawing of the chest of a phantom: body, lungs, heart, bones.

Everything is a smooth function of two coordinate grids, so that a phantom can be drawn
at any size. ``x`` increases to the right of the image (the patient's left), ``y``
downwards, and the image spans -1 to 1 in both before the view is rotated and shifted.
Values are brightness on film: 0 is black (air), 1 is white (metal).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# Brightness of tissue before exposure; chosen by eye.
SOFT_TISSUE = 0.66
ORGAN = 0.76
LUNG = 0.22


@dataclass(frozen=True)
class Body:
    """Build of one patient; lengths are in units of half the image."""

    habitus: float  # 0 is slender, 1 is heavy; above 1 is heavier than usual
    chest_width: float  # half width of the rib cage
    apex: float  # y of the tops of the lungs
    dome: float  # y of the tops of the diaphragm
    heart_ratio: float  # width of the heart divided by that of the chest
    heart_height: float
    heart_tilt: float
    mediastinum: float  # half width
    rib_spacing: float
    rib_phase: float
    breasts: float  # brightness of breast shadows, or 0
    markings: float  # strength of the lung vessels


@dataclass(frozen=True)
class View:
    """Position of the patient in one image."""

    size: int
    rotation: float  # degrees
    zoom: float
    shift: tuple[float, float]
    breath: float  # downward shift of the diaphragm


@dataclass
class Canvas:
    """The image being drawn, and the places needed to draw findings."""

    body: Body
    x: np.ndarray
    y: np.ndarray
    density: np.ndarray
    lung: np.ndarray  # share of each pixel that is lung, heart excluded
    heart: np.ndarray
    wall: np.ndarray  # |x| of the inner chest wall at each pixel
    diaphragm: np.ndarray  # y of the diaphragm at each pixel
    pixel: float  # size of a pixel, in units of half the image

    def side(self, side: str) -> np.ndarray:
        """Return 1 on the ``"left"`` or ``"right"`` of the patient, else 0."""
        return (self.x > 0 if side == "left" else self.x < 0).astype(np.float32)

    def blend(self, brightness: float | np.ndarray, alpha: np.ndarray) -> None:
        """Paint ``brightness`` over the image with opacity ``alpha``."""
        self.density += alpha * (brightness - self.density)


def sample_body(
    rng: np.random.Generator, habitus: tuple[float, float], enlarged: float | None
) -> Body:
    """Sample the build of a patient; ``enlarged`` is the size of a cardiomegaly."""
    heart = rng.uniform(0.37, 0.475) if enlarged is None else 0.5 + 0.17 * enlarged
    return Body(
        habitus=rng.uniform(*habitus),
        chest_width=rng.uniform(0.60, 0.72),
        apex=rng.uniform(-0.80, -0.68),
        dome=rng.uniform(0.32, 0.46),
        heart_ratio=heart,
        heart_height=rng.uniform(0.27, 0.33),
        heart_tilt=rng.uniform(0.2, 0.6),
        mediastinum=rng.uniform(0.10, 0.14),
        rib_spacing=rng.uniform(0.19, 0.23),
        rib_phase=rng.uniform(0, 1),
        breasts=rng.uniform(0.03, 0.10) if rng.random() < 0.4 else 0.0,
        markings=rng.uniform(0.6, 1.3),
    )


def draw_chest(body: Body, view: View, rng: np.random.Generator) -> Canvas:
    """Draw body, lungs, heart and vessels, but not findings and bones."""
    x, y = _coordinates(view)
    wide = np.abs(x)
    canvas = Canvas(
        body=body,
        x=x,
        y=y,
        density=np.full_like(x, 0.02),
        lung=np.empty_like(x),
        heart=np.empty_like(x),
        wall=chest_wall(body, y),
        diaphragm=_diaphragm(body, view, x, wide),
        pixel=2 / view.size * view.zoom,
    )
    skin = 0.84 + 0.10 * body.habitus
    outline = skin - 0.52 * np.clip(-0.62 - y, 0, None) ** 0.8 + 0.05 * y
    canvas.blend(SOFT_TISSUE + 0.05 * body.habitus, ramp(outline - wide, 0.06))

    lung = ramp(canvas.wall - wide, 0.03)
    lung *= ramp(wide - 0.6 * body.mediastinum, 0.04)
    lung *= ramp(canvas.diaphragm - y, 0.03)
    heart = _heart(body, view, x, y)
    canvas.heart = heart
    canvas.blend(LUNG + 0.13 * body.habitus, lung)
    canvas.density += lung * _vessels(body, view, x, y, wide, rng)
    canvas.blend(ORGAN, 0.9 * ramp(y - canvas.diaphragm, 0.03) * (wide < outline))
    band = body.mediastinum * (0.9 + 0.25 * ramp(y + 0.25, 0.8))
    canvas.blend(ORGAN - 0.04, 0.85 * ramp(band - wide, 0.04) * ramp(y + 0.86, 0.2))
    canvas.blend(ORGAN, 0.92 * heart)
    knob = ramp(1 - np.hypot((x - 0.12) / 0.09, (y + 0.27) / 0.10), 0.35)
    canvas.blend(ORGAN - 0.03, 0.75 * knob)
    if body.breasts:
        breast = ramp(1 - np.hypot((wide - 0.40) / 0.34, (y - 0.36) / 0.32), 0.3)
        canvas.density += body.breasts * breast
    bubble = ramp(1 - np.hypot((x - 0.33) / 0.13, (y - 0.74) / 0.08), 0.6)
    canvas.density -= rng.uniform(0.0, 0.3) * bubble
    canvas.lung = lung * (1 - heart) * ramp(wide - band, 0.04)
    return canvas


def add_bones(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw spine, ribs, collar bones and windpipe over the image."""
    body, x, y, wide = canvas.body, canvas.x, canvas.y, np.abs(canvas.x)
    cage = ramp(canvas.wall + 0.05 - wide, 0.05) * ramp(
        canvas.diaphragm + 0.25 - y, 0.2
    )
    turn = 2 * np.pi / body.rib_spacing
    phase = 2 * np.pi * body.rib_phase
    back = np.cos((y - 0.30 * wide - 0.45 * wide**2) * turn + phase)
    front = np.cos((y + 0.75 * wide - 0.25) * turn * 0.9 + phase + 1.0)
    strength = rng.uniform(0.05, 0.09)
    canvas.density += cage * strength * np.clip(1.8 * back - 0.5, 0, 1)
    canvas.density += cage * (0.5 * strength) * np.clip(2 * front - 0.9, 0, 1)
    spine = ramp(0.065 - wide, 0.04)
    canvas.density += spine * (0.07 + 0.03 * np.cos(y * 2 * np.pi / 0.14))
    collar = body.apex + 0.17 - 0.22 * (wide - 0.1) + 0.10 * np.sin(4 * wide)
    bone = ramp(0.028 - np.abs(y - collar), 0.025)
    bone *= ramp(wide - 0.08, 0.03) * ramp(0.74 - wide, 0.08)
    canvas.density += rng.uniform(0.08, 0.14) * bone
    windpipe = ramp(0.035 - np.abs(x - 0.01), 0.03)
    canvas.density -= 0.13 * windpipe * ramp(-0.28 - y, 0.1) * ramp(y + 1.0, 0.1)


def ramp(distance: np.ndarray, width: float) -> np.ndarray:
    """Return a soft step from 0 to 1, of ``width`` around zero."""
    return np.clip(distance * np.float32(1 / width) + np.float32(0.5), 0, 1)


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Return ``(size, size)`` noise of unit variance, with ``cells`` blobs per side."""
    weights = _upsampling(size, cells)
    grid = rng.standard_normal((cells + 1, cells + 1), dtype=np.float32)
    return 1.5 * (weights @ grid @ weights.T)


@lru_cache(maxsize=64)
def _upsampling(size: int, cells: int) -> np.ndarray:
    at = np.linspace(0, cells, size, dtype=np.float32)
    distance = np.abs(at[:, None] - np.arange(cells + 1, dtype=np.float32))
    hat = np.clip(1 - distance, 0, None)
    return hat * hat * (3 - 2 * hat)


@lru_cache(maxsize=8)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    at = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(2 / size) - 1
    y, x = np.meshgrid(at, at, indexing="ij")
    return x, y


def _coordinates(view: View) -> tuple[np.ndarray, np.ndarray]:
    x, y = _grid(view.size)
    angle = np.deg2rad(view.rotation)
    cosine = np.float32(np.cos(angle) * view.zoom)
    sine = np.float32(np.sin(angle) * view.zoom)
    right, down = np.float32(view.shift[0]), np.float32(view.shift[1])
    return cosine * x + sine * y - right, cosine * y - sine * x - down


def chest_wall(body: Body, y: np.ndarray | float) -> np.ndarray:
    """Return the half width of the rib cage at height ``y``."""
    depth: np.ndarray = np.clip((y - body.apex) / np.float32(0.45 - body.apex), 0, 1)
    return np.float32(body.chest_width) * (depth * (2 - depth)) ** np.float32(0.42)


def _diaphragm(body: Body, view: View, x: np.ndarray, wide: np.ndarray) -> np.ndarray:
    off = (wide - np.float32(0.36 * body.chest_width)) / np.float32(body.chest_width)
    raised = np.where(x < 0, np.float32(-0.05), np.float32(0.0))
    return body.dome + view.breath + raised + np.float32(0.55) * off * off


def _heart(body: Body, view: View, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    half = body.heart_ratio * body.chest_width
    # Two thirds of a heart of any size lie on the patient's left.
    dx = x - np.float32(0.34 * half)
    dy = y - np.float32(body.dome + 0.7 * view.breath - 0.62 * body.heart_height)
    tilted = dy - np.float32(body.heart_tilt) * dx * np.float32(0.5)
    height = body.heart_height * (0.75 + 0.55 * body.heart_ratio)
    radius = np.sqrt((dx / np.float32(half)) ** 2 + (tilted / np.float32(height)) ** 2)
    return ramp(1 - radius, 0.10)


def _vessels(
    body: Body,
    view: View,
    x: np.ndarray,
    y: np.ndarray,
    wide: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    distance = np.hypot(wide - np.float32(0.16), (y + np.float32(0.02)) * 0.8)
    fading = np.clip(1 - 1.3 * distance, 0.12, 1)
    fine = np.abs(smooth_noise(rng, view.size, 30))
    coarse = smooth_noise(rng, view.size, 9)
    hilum = np.clip(1 - distance / np.float32(0.15), 0, 1)
    return body.markings * (fading * (0.07 * fine + 0.025 * coarse) + 0.16 * hilum)
