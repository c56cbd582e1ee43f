"""Synthetic people as a parametric face, rendered by soft masks: nobody's biometric data.

A person is a point in the identity space (proportions, skin, hair, brows, nose, lips, moles); a
picture adds pose, light, expression, gaze, glasses, clothes and background, drawn independently of
the person. The utility attributes belong to the picture, but for the last one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from leakaudit.core.rng import Rng

IDENTITY_PARAMETERS = [
    "skin_light",
    "skin_hue",
    "face_width",
    "face_height",
    "jaw",
    "taper",
    "eye_gap",
    "eye_size",
    "eye_height",
    "eye_slant",
    "iris",
    "brow_thick",
    "brow_tilt",
    "brow_height",
    "nose_length",
    "nose_width",
    "mouth_width",
    "mouth_height",
    "lip_full",
    "lip_hue",
    "hair_dark",
    "hair_hue",
    "hairline",
    "hair_length",
    "hair_volume",
    "parting",
    "fringe",
    "beard",
    "ears",
    "mole_x",
    "mole_y",
    "mole",
]
PICTURE_PARAMETERS = [
    "smile",
    "mouth_open",
    "glasses",
    "gaze",
    "light_side",
    "turn",
    "pitch",
    "roll",
    "scale",
    "shift_x",
    "shift_y",
    "light_strength",
    "light_top",
    "brightness",
    "warmth",
    "glasses_shape",
    "backdrop_r",
    "backdrop_g",
    "backdrop_b",
    "backdrop_slope",
    "cloth_r",
    "cloth_g",
    "cloth_b",
    "blink",
]
ATTRIBUTES = (
    "smiling",
    "mouth_open",
    "eyeglasses",
    "gaze_right",
    "light_from_right",
    "turned_right",
    "beard",
)
"""Names of the utility attributes; all but ``beard`` belong to the picture, not to the person."""

SIZE = 64
_EDGE = 0.022  # softness of a mask's edge; a pixel is 2 / 64 = 0.031 wide


@dataclass(frozen=True)
class Portraits:
    """Rendered pictures with their truth.

    ``images`` (N, 3, 64, 64) in [0, 1], ``people`` (N,) indices, ``attributes`` (N, 7) of 0 and 1.
    """

    images: Tensor
    people: Tensor
    attributes: Tensor


def draw_people(count: int, rng: Rng) -> Tensor:
    """Identities, (count, 32) uniform in [0, 1]; two draws are two different people."""
    return torch.rand(count, len(IDENTITY_PARAMETERS), generator=rng.torch())


def draw_pictures(count: int, rng: Rng) -> Tensor:
    """Circumstances of pictures, (count, 24); the six attributes are drawn balanced with a margin.

    The first six columns are -1..1 (0..1 for ``mouth_open`` and ``glasses``), the rest is uniform
    in [0, 1].
    """
    generator = rng.torch()
    pictures = torch.rand(count, len(PICTURE_PARAMETERS), generator=generator)
    coin = (torch.rand(count, 6, generator=generator) < 0.5).float()
    strength = 0.3 + 0.7 * torch.rand(count, 6, generator=generator)
    signed = (2 * coin - 1) * strength
    pictures[:, :6] = signed
    pictures[:, 1] = torch.where(coin[:, 1] > 0, strength[:, 1], 0.1 * strength[:, 1])
    pictures[:, 2] = coin[:, 2]
    return pictures


def attributes_of(people: Tensor, pictures: Tensor) -> Tensor:
    """The utility attributes, (N, 7) of 0 and 1, of identities (N, 32) in pictures (N, 24)."""
    smile, opened, glasses, gaze, side, turn = pictures[:, :6].unbind(1)
    beard = people[:, IDENTITY_PARAMETERS.index("beard")] > 0.5
    columns = (smile > 0, opened > 0.2, glasses > 0.5, gaze > 0, side > 0, turn > 0, beard)
    return torch.stack([column.float() for column in columns], dim=1)


def portraits(people: Tensor, per_person: int, rng: Rng, *, batch: int = 256) -> Portraits:
    """``per_person`` pictures of each identity (P, 32), person by person."""
    index = torch.arange(len(people)).repeat_interleave(per_person)
    pictures = draw_pictures(len(index), rng)
    chunks = [
        render(people[index[at : at + batch]], pictures[at : at + batch])
        for at in range(0, len(index), batch)
    ]
    return Portraits(torch.cat(chunks), index, attributes_of(people[index], pictures))


def render(people: Tensor, pictures: Tensor, *, size: int = SIZE) -> Tensor:
    """Images (N, 3, size, size) in [0, 1] of identities (N, 32) in circumstances (N, 24)."""
    p = {k: people[:, i, None, None] for i, k in enumerate(IDENTITY_PARAMETERS)}
    c = {k: pictures[:, i, None, None] for i, k in enumerate(PICTURE_PARAMETERS)}
    x, y = _face_coordinates(c, size)
    canvas = _backdrop(c, size)
    skin, hair = _skin(p), _hair_colour(p)
    canvas = _behind_the_face(canvas, x, y, p, c, skin, hair)
    head = _Head.of(p, c, x, y)
    canvas = _over(canvas, _relief(skin, head), head.mask)
    canvas = _beard(canvas, head, p, hair)
    canvas = _eyes(canvas, head, p, c, skin, hair)
    canvas = _nose(canvas, head, p, skin)
    canvas = _mouth(canvas, head, p, c, skin)
    canvas = _mole(canvas, head, p, skin)
    canvas = _front_hair(canvas, head, p, hair)
    canvas = _glasses(canvas, head, p, c)
    return _lit(canvas, x, y, c).clamp(0, 1)


@dataclass(frozen=True)
class _Head:
    """The outline of a head and the coordinates of its features, shifted by the turn."""

    x: Tensor  # of the outline
    y: Tensor
    fx: Tensor  # of the features: eyes, mouth
    fy: Tensor
    nose_x: Tensor
    width: Tensor
    height: Tensor
    mask: Tensor

    @staticmethod
    def of(p: dict[str, Tensor], c: dict[str, Tensor], x: Tensor, y: Tensor) -> _Head:
        width, height = _lerp(p["face_width"], 0.43, 0.60), _lerp(p["face_height"], 0.58, 0.74)
        turn, pitch = c["turn"], 2 * c["pitch"] - 1
        taper = _lerp(p["taper"], 0.05, 0.45)
        below = torch.relu(y / height)
        w = width * (1 - taper * below**2).clamp(min=0.2)
        power = _lerp(p["jaw"], 1.9, 3.4)
        radius = ((x.abs() / w + 1e-6) ** power + (y.abs() / height + 1e-6) ** power) ** (1 / power)
        mask = _soft((1 - radius) * 0.5)
        fx = (x - 0.11 * turn) / (1 - 0.08 * turn.abs())
        return _Head(
            x=x,
            y=y,
            fx=fx,
            fy=y - 0.04 * pitch,
            nose_x=x - 0.17 * turn,
            width=width,
            height=height,
            mask=mask,
        )


def _lerp(t: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * t


def _soft(signed_distance: Tensor) -> Tensor:
    """A mask in [0, 1] that is one where the distance is positive."""
    return torch.sigmoid(signed_distance / _EDGE)


def _colour(*channels: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(*channels), dim=1)


def _over(canvas: Tensor, paint: Tensor, mask: Tensor) -> Tensor:
    mask = mask.unsqueeze(1)
    return canvas * (1 - mask) + paint * mask


def _ellipse(dx: Tensor, dy: Tensor, rx: Tensor | float, ry: Tensor | float) -> Tensor:
    """Signed distance, positive inside, of an ellipse about the origin (first order)."""
    radius = torch.sqrt((dx / rx) ** 2 + (dy / ry) ** 2 + 1e-9)
    scale = torch.minimum(torch.as_tensor(rx), torch.as_tensor(ry))
    return (1 - radius) * scale


def _face_coordinates(c: dict[str, Tensor], size: int) -> tuple[Tensor, Tensor]:
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    v, u = torch.meshgrid(line, line, indexing="ij")
    u = u - _lerp(c["shift_x"], -0.05, 0.05)
    v = v - _lerp(c["shift_y"], -0.05, 0.05) - 0.06
    angle = _lerp(c["roll"], -0.12, 0.12)
    scale = _lerp(c["scale"], 0.94, 1.08)
    x = (u * torch.cos(angle) + v * torch.sin(angle)) / scale
    y = (v * torch.cos(angle) - u * torch.sin(angle)) / scale
    return x, y


def _backdrop(c: dict[str, Tensor], size: int) -> Tensor:
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    base = _colour(*(_lerp(c[f"backdrop_{k}"], 0.40, 0.72) for k in "rgb"))
    slope = (c["backdrop_slope"] - 0.5) * 0.35
    return base + slope.unsqueeze(1) * line.view(1, 1, size, 1).expand(-1, 3, -1, size)


def _skin(p: dict[str, Tensor]) -> Tensor:
    light, hue = p["skin_light"], p["skin_hue"]
    red = _lerp(light, 0.38, 0.97)
    green = red * (_lerp(light, 0.64, 0.82) + 0.07 * (hue - 0.5))
    blue = red * (_lerp(light, 0.46, 0.70) - 0.12 * (hue - 0.5))
    return _colour(red, green, blue)


def _hair_colour(p: dict[str, Tensor]) -> Tensor:
    light, hue = p["hair_dark"] ** 1.4, p["hair_hue"]
    red = _lerp(light, 0.07, 0.88)
    green = red * _lerp(hue, 0.62, 0.92)
    blue = red * _lerp(hue, 0.38, 0.85)
    return _colour(red, green, blue)


def _behind_the_face(
    canvas: Tensor,
    x: Tensor,
    y: Tensor,
    p: dict[str, Tensor],
    c: dict[str, Tensor],
    skin: Tensor,
    hair: Tensor,
) -> Tensor:
    width, height = _lerp(p["face_width"], 0.43, 0.60), _lerp(p["face_height"], 0.58, 0.74)
    length = torch.relu(p["hair_length"] - 0.45) / 0.55
    volume = _lerp(p["hair_volume"], 0.06, 0.20)
    long = _ellipse(x, y - 0.45 * length, width + volume, height + volume + 0.25 * length)
    canvas = _over(canvas, hair * 0.8, _soft(long) * torch.sigmoid((length - 0.05) * 60))
    shoulders = _ellipse(x, y - 1.25, torch.as_tensor(0.95), torch.as_tensor(0.55))
    neck = torch.minimum(0.26 - x.abs(), y - 0.2)
    canvas = _over(canvas, skin * 0.82, _soft(neck))
    cloth = _colour(*(_lerp(c[f"cloth_{k}"], 0.15, 0.65) for k in "rgb"))
    canvas = _over(canvas, cloth, _soft(shoulders))
    size = _lerp(p["ears"], 0.05, 0.11)
    ear = torch.maximum(
        _ellipse(x - width, y - 0.03, size, size * 1.6),
        _ellipse(x + width, y - 0.03, size, size * 1.6),
    )
    return _over(canvas, skin * 0.9, _soft(ear))


def _relief(skin: Tensor, head: _Head) -> Tensor:
    """Skin, a little darker towards the outline, warmer on the cheeks."""
    edge = (head.x / head.width) ** 2 + (head.y / head.height) ** 2
    cheeks = torch.exp(-(((head.fx.abs() - 0.26) / 0.13) ** 2) - ((head.fy - 0.2) / 0.12) ** 2)
    warm = torch.stack([0.04 * cheeks, -0.02 * cheeks, -0.02 * cheeks], dim=1)
    return skin * (1.03 - 0.16 * edge.clamp(0, 1.2)).unsqueeze(1) + warm


def _beard(canvas: Tensor, head: _Head, p: dict[str, Tensor], hair: Tensor) -> Tensor:
    density = torch.relu(p["beard"] - 0.5) * 2
    density = torch.where(p["beard"] > 0.5, 0.35 + 0.55 * density, torch.zeros_like(density))
    mouth = _mouth_line(p)
    low = _soft((head.fy - mouth + 0.02 - 0.5 * (head.fx.abs() - 0.2).clamp(min=-0.1)) * 0.6)
    return _over(canvas, hair * 0.75, low * head.mask * density)


def _eye_line(p: dict[str, Tensor]) -> Tensor:
    return _lerp(p["eye_height"], -0.16, -0.02)


def _mouth_line(p: dict[str, Tensor]) -> Tensor:
    return _lerp(p["mouth_height"], 0.33, 0.44)


def _eyes(
    canvas: Tensor,
    head: _Head,
    p: dict[str, Tensor],
    c: dict[str, Tensor],
    skin: Tensor,
    hair: Tensor,
) -> Tensor:
    gap, size = _lerp(p["eye_gap"], 0.17, 0.27), _lerp(p["eye_size"], 0.075, 0.125)
    slant = _lerp(p["eye_slant"], -0.25, 0.3)
    line = _eye_line(p)
    iris = p["iris"]
    iris_colour = _colour(_lerp(iris, 0.16, 0.35), _lerp(iris, 0.09, 0.5), _lerp(iris, 0.05, 0.62))
    lids = _lerp(c["blink"], 0.5, 0.62)
    lift = _lerp(p["brow_height"], 0.13, 0.21)
    thick, tilt = _lerp(p["brow_thick"], 0.014, 0.05), _lerp(p["brow_tilt"], -0.3, 0.35)
    for side in (-1.0, 1.0):
        dx = head.fx - side * gap
        dy = head.fy - line + side * slant * dx
        white = _soft(_ellipse(dx, dy, size, size * lids))
        canvas = _over(canvas, torch.full_like(canvas, 0.93), white)
        gx = dx - 0.45 * size * c["gaze"]
        radius = 0.5 * size
        canvas = _over(canvas, iris_colour, _soft(_ellipse(gx, dy, radius, radius)) * white)
        canvas = _over(
            canvas,
            torch.full_like(canvas, 0.04),
            _soft(_ellipse(gx, dy, radius * 0.45, radius * 0.45)) * white,
        )
        lid = 0.012 - (dy + size * lids * torch.sqrt((1 - (dx / size) ** 2).clamp(0.0, 1))).abs()
        canvas = _over(canvas, skin * 0.35, _soft(lid) * (dx.abs() < size).float())
        brow_y = head.fy - line + lift + side * tilt * dx + 0.9 * dx**2
        brow = torch.minimum(thick - brow_y.abs(), size * 1.35 - dx.abs())
        canvas = _over(canvas, hair * 0.7, _soft(brow) * 0.92)
    return canvas


def _nose(canvas: Tensor, head: _Head, p: dict[str, Tensor], skin: Tensor) -> Tensor:
    top, length = _eye_line(p) + 0.06, _lerp(p["nose_length"], 0.17, 0.30)
    width = _lerp(p["nose_width"], 0.05, 0.115)
    t = ((head.fy - top) / length).clamp(0, 1)
    x = head.fx * (1 - t) + head.nose_x * t
    inside = ((head.fy > top) & (head.fy < top + length + 0.02)).float()
    ridge = torch.exp(-(((x.abs() - width * (0.3 + 0.6 * t)) / 0.025) ** 2)) * inside
    canvas = _over(canvas, skin * 0.72, 0.5 * ridge)
    tip_y = head.fy - top - length
    base = torch.exp(-((tip_y / 0.022) ** 2)) * _soft(width * 1.05 - head.nose_x.abs())
    canvas = _over(canvas, skin * 0.6, 0.7 * base)
    for side in (-1.0, 1.0):
        hole = _ellipse(head.nose_x - side * 0.55 * width, tip_y + 0.005, 0.3 * width, 0.016)
        canvas = _over(canvas, skin * 0.3, _soft(hole) * 0.8)
    return canvas


def _mouth(
    canvas: Tensor, head: _Head, p: dict[str, Tensor], c: dict[str, Tensor], skin: Tensor
) -> Tensor:
    smile, opened = c["smile"], c["mouth_open"]
    half = _lerp(p["mouth_width"], 0.14, 0.24) * (1 + 0.14 * smile)
    full = _lerp(p["lip_full"], 0.022, 0.058)
    bend = 0.085 * smile
    t = head.fx / half
    line = head.fy - _mouth_line(p) + bend * (t**2 - 0.35)
    taper = torch.sqrt((1 - t**2).clamp(1e-4, 1))
    gape = 0.085 * opened * taper
    lip = (full * taper + gape - (line - 0.5 * gape).abs()).clamp(max=0.2)
    inside = (t.abs() < 1).float()
    hue = p["lip_hue"]
    red = torch.stack(
        [
            skin[:, 0] * _lerp(hue, 0.80, 0.98),
            skin[:, 1] * _lerp(hue, 0.75, 0.48),
            skin[:, 2] * _lerp(hue, 0.78, 0.55),
        ],
        dim=1,
    )
    canvas = _over(canvas, red, _soft(lip) * inside)
    dark = torch.full_like(canvas, 0.1)
    canvas = _over(canvas, dark, _soft(gape + 0.006 - (line - 0.5 * gape).abs()) * inside)
    teeth = _soft(torch.minimum(0.45 * gape - (line + 0.1 * gape).abs(), gape - 0.02)) * inside
    return _over(canvas, torch.full_like(canvas, 0.92), teeth * 0.9)


def _mole(canvas: Tensor, head: _Head, p: dict[str, Tensor], skin: Tensor) -> Tensor:
    dx = head.fx - _lerp(p["mole_x"], -0.32, 0.32)
    dy = head.fy - _lerp(p["mole_y"], 0.08, 0.5)
    radius = torch.relu(p["mole"] - 0.5) * 0.08
    mask = _soft(_ellipse(dx, dy, radius + 1e-3, radius + 1e-3)) * (p["mole"] > 0.5)
    return _over(canvas, skin * 0.35, mask * head.mask)


def _front_hair(canvas: Tensor, head: _Head, p: dict[str, Tensor], hair: Tensor) -> Tensor:
    volume = _lerp(p["hair_volume"], 0.03, 0.17)
    cap = _ellipse(head.x, head.y + 0.5 * volume, head.width + 0.5 * volume, head.height + volume)
    part = _lerp(p["parting"], -0.3, 0.3)
    fringe = _lerp(p["fringe"], -0.25, 0.9)
    line = -head.height * _lerp(p["hairline"], 0.50, 0.86)
    sides = _lerp(p["hair_length"], 0.25, 1.0)
    across = (head.x - part) / head.width
    temples = torch.relu(head.x.abs() / head.width - 0.6) / 0.4
    edge = line - fringe * 0.16 * torch.cos(across * math.pi) + 0.9 * sides * temples**2
    mask = _soft(torch.minimum(cap, (edge - head.y) * 0.8))
    streak = 1 + 0.10 * torch.sin(head.x * 34 + 5 * head.y)
    return _over(canvas, hair * streak.unsqueeze(1), mask)


def _glasses(canvas: Tensor, head: _Head, p: dict[str, Tensor], c: dict[str, Tensor]) -> Tensor:
    line, gap = _eye_line(p), _lerp(p["eye_gap"], 0.17, 0.27)
    power = torch.where(c["glasses_shape"] > 0.5, 2.0, 4.0)
    rx, ry = 0.155, 0.125
    frame = torch.zeros_like(head.fx)
    for side in (-1.0, 1.0):
        dx, dy = (head.fx - side * (gap + 0.005)).abs() / rx, (head.fy - line - 0.01).abs() / ry
        radius = ((dx + 1e-4) ** power + (dy + 1e-4) ** power) ** (1 / power)
        frame = torch.maximum(frame, _soft(0.022 - (radius - 1).abs() * 0.12))
    bridge = torch.minimum(0.016 - (head.fy - line).abs(), gap - 0.12 - head.fx.abs())
    temple = torch.minimum(0.016 - (head.fy - line).abs(), head.fx.abs() - gap - 0.15)
    temple = torch.minimum(temple, head.width - head.x.abs() + 0.02)
    frame = torch.maximum(frame, torch.maximum(_soft(bridge), _soft(temple)))
    dark = torch.full_like(canvas, 0.08)
    return _over(canvas, dark, frame * c["glasses"])


def _lit(canvas: Tensor, x: Tensor, y: Tensor, c: dict[str, Tensor]) -> Tensor:
    side = c["light_side"] * _lerp(c["light_strength"], 0.28, 0.42)
    top = _lerp(c["light_top"], -0.06, 0.12)
    light = 1 + side * x.clamp(-1, 1) - top * y.clamp(-1, 1)
    light = light * _lerp(c["brightness"], 0.82, 1.08)
    warm = _lerp(c["warmth"], -0.07, 0.07).unsqueeze(1)
    tint = 1 + warm * torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1)
    return canvas * light.unsqueeze(1) * tint
