"""Rendered portraits that a face detector finds, for tests of alignment."""

from __future__ import annotations

import torch
from PIL import Image

from leakaudit.core.rng import Rng
from leakaudit.demo.people import draw_people, draw_pictures, render


def portrait(seed: int, *, size: int = 160) -> Image.Image:
    """A frontal face without glasses; each seed is another person."""
    rng = Rng(seed)
    pictures = draw_pictures(1, rng.derive("p"))
    pictures[:, [1, 2, 5, 6, 7]] = torch.tensor([0.0, 0.0, 0.0, 0.5, 0.5])
    image = render(draw_people(1, rng), pictures, size=size)[0]
    return Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy())
