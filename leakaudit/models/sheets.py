"""Sheets of pictures to look at, as PNG."""

from __future__ import annotations

import io
import os
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from leakaudit.core.files import atomic_write


def sheet(path: Path, rows: Tensor) -> Path:
    """The file with pictures (R, C, 3, H, W) in [0, 1] in a grid; for its owner's eyes (0600)."""
    count, across, _, height, width = rows.shape
    grid = rows.detach().cpu().clamp(0, 1).permute(0, 3, 1, 4, 2)
    pixels = (grid.reshape(count * height, across * width, 3) * 255).round().to(torch.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(stream, format="PNG")
    written = atomic_write(path, stream.getvalue())
    os.chmod(written, 0o600)
    return written


def in_rows(pictures: Tensor, across: int) -> Tensor:
    """Pictures (N, 3, H, W) as (R, across, 3, H, W); white ones fill the last row."""
    missing = -len(pictures) % across
    blank = torch.ones(missing, *pictures.shape[1:], dtype=pictures.dtype, device=pictures.device)
    return torch.cat([pictures, blank]).unflatten(0, (-1, across))
