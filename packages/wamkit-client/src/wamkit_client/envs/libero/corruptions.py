"""Images that are blurred or foggy, as LIBERO-Plus's fifty numbers say: five kinds, each at ten levels.

The kinds are those of ImageNet-C (arXiv 1903.12261) with levels of LIBERO-Plus, for images of 256x256. There what is
drawn differs from run to run; here it follows from a generator. Knows images only.
"""

from __future__ import annotations

import math
from typing import Callable, Tuple

import numpy as np

LEVELS = 10  # of each kind
SIZE = 256  # pixels, of both sides
SHUFFLED = 224  # pixels: what lies beyond is only blurred behind glass

MOTION = ((5, 2), (8, 3), (10, 4), (12, 5), (15, 6), (18, 8), (20, 10), (25, 12), (30, 15), (35, 20))
"""Radius and sigma of the path, pixels."""
ZOOM = (
    (1.11, 0.01),
    (1.16, 0.01),
    (1.21, 0.02),
    (1.26, 0.02),
    (1.31, 0.03),
    (1.36, 0.01),
    (1.41, 0.01),
    (1.46, 0.02),
    (1.51, 0.02),
    (1.56, 0.03),
)
"""End and step of the magnifications that are averaged, from 1."""
FOG = (
    (0.5, 3.0),
    (1.0, 2.8),
    (1.5, 2.5),
    (2.0, 2.2),
    (2.5, 2.0),
    (3.0, 1.8),
    (3.5, 1.6),
    (4.0, 1.5),
    (4.5, 1.4),
    (5.0, 1.3),
)
"""Density, and by how much each halving of the pattern is fainter."""
GLASS = (
    (0.5, 1, 3),
    (0.7, 1, 3),
    (0.9, 2, 3),
    (1.0, 2, 2),
    (1.1, 3, 2),
    (1.3, 3, 2),
    (1.5, 4, 2),
    (1.8, 4, 2),
    (2.2, 5, 1),
    (2.5, 5, 1),
)
"""Sigma of the blur before and after, how far pixels are displaced, how often."""


def corrupted(image: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """An image, uint8 [256 256 3], with corruption `number`, 1 to 50."""
    kind, level = divmod(number - 1, LEVELS)
    return KINDS[kind](image, level, rng)


def motion(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Along a line at an angle that is drawn; half of a Gaussian kernel, as ImageMagick's."""
    radius, sigma = MOTION[level]
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2.0 * sigma**2))
    angle = math.radians(rng.uniform(-45, 45))
    right, down = (np.ceil(steps * part - 0.5).astype(int) for part in (math.cos(angle), math.sin(angle)))
    rows, columns = np.indices(image.shape[:2])
    total = np.zeros(image.shape)
    for weight, x, y in zip(weights / weights.sum(), right, down):
        total += weight * image[_within(rows + y, image.shape[0]), _within(columns + x, image.shape[1])]
    return np.asarray(total.astype(np.uint8))


def gaussian(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Sigma is one to ten pixels."""
    return _bytes(_blurred(image / 255.0, level + 1))


def zoom(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """The mean of the image and of its magnified middles."""
    from scipy.ndimage import zoom as resized

    end, step = ZOOM[level]
    factors = np.arange(1, end, step)
    size, values = len(image), (image / 255.0).astype(np.float32)
    total = np.zeros_like(values)
    for factor in factors:
        part = math.ceil(size / float(factor))
        first = (size - part) // 2
        middle = values[first : first + part, first : first + part]
        larger = resized(middle, (factor, factor, 1), order=1)
        extra = (len(larger) - size) // 2
        total += larger[extra : extra + size, extra : extra + size]
    return _bytes((values + total) / (len(factors) + 1))


def fog(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """White clouds in front of it."""
    density, fading = FOG[level]
    values = image / 255.0
    most = values.max()
    clouded = values + density * clouds(SIZE, fading, rng)[..., None]
    return _bytes(clouded * most / (most + density))


def clouds(size: int, fading: float, rng: np.random.Generator) -> np.ndarray:
    """A fractal pattern [size size], 0 to 1, by the diamond-square algorithm on a torus. size: a power of two."""
    field = np.zeros((size, size))
    step, spread = size, 100.0

    def drawn(mean: np.ndarray) -> np.ndarray:
        return np.asarray(mean / 4 + spread * rng.uniform(-spread, spread, mean.shape))

    while step >= 2:
        half = step // 2
        corners = field[::step, ::step]
        rows = corners + np.roll(corners, -1, 0)
        field[half::step, half::step] = drawn(rows + np.roll(rows, -1, 1))
        centres = field[half::step, half::step]
        beside = centres + np.roll(centres, 1, 0) + (corners + np.roll(corners, -1, 1))
        field[::step, half::step] = drawn(beside)
        above = centres + np.roll(centres, 1, 1) + (corners + np.roll(corners, -1, 0))
        field[half::step, ::step] = drawn(above)
        step, spread = half, spread / fading
    field -= field.min()
    return np.asarray(field / field.max())


def glass(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Every pixel, from the last to the first, takes the value of one nearby, drawn anew; a blur before and after."""
    sigma, far, times = GLASS[level]
    values = _bytes(_blurred(image / 255.0, sigma))
    order = np.arange(SHUFFLED - far, far, -1)
    rows, columns = (part.ravel() for part in np.meshgrid(order, order, indexing="ij"))
    source = list(range(SIZE * SIZE))
    for _ in range(times):
        beside = rng.integers(-far, far, size=(len(rows), 2))  # columns, rows
        taken = (rows + beside[:, 1]) * SIZE + columns + beside[:, 0]
        for to, fro in zip((rows * SIZE + columns).tolist(), taken.tolist()):
            source[to] = source[fro]
    shuffled = values.reshape(-1, 3)[source].reshape(image.shape)
    return _bytes(_blurred(shuffled / 255.0, sigma))


KINDS: Tuple[Callable[[np.ndarray, int, np.random.Generator], np.ndarray], ...] = (
    motion,
    gaussian,
    zoom,
    fog,
    glass,
)


def _within(numbers: np.ndarray, size: int) -> np.ndarray:
    return np.clip(numbers, 0, size - 1)


def _blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(values, (sigma, sigma, 0), mode="nearest"))


def _bytes(values: np.ndarray) -> np.ndarray:
    """Of 0 to 1; the fraction is cut off, as LIBERO-Plus does."""
    return np.asarray((np.clip(values, 0, 1) * 255).astype(np.uint8))
