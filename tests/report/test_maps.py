import math
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from leakaudit.core.types import LatentMap, MapGroup
from leakaudit.report.html import render_html
from leakaudit.report.maps import latent_map
from report.sample import sample_result


def drawn(found):
    """Crowds by class, each with the start points of its signs in pixels."""
    root = ET.fromstring(latent_map(found))
    return {
        path.get("class"): [
            tuple(map(float, at)) for at in re.findall(r"M(-?[\d.]+) (-?[\d.]+)", path.get("d"))
        ]
        for path in root.iter("path")
    }


def test_axes_are_equal_and_every_point_is_inside():
    points = ((0.0, 0.0), (3.0, 0.0), (0.0, 3.0), (-9.0, 0.0))
    group = MapGroup(None, 4, (0.0, 0.0), 1.0, points)
    (at,) = drawn(LatentMap("a", 8, (0.5, 0.2), (group,))).values()
    origin, right, up, far = at
    assert right[0] - origin[0] == pytest.approx(origin[1] - up[1], abs=0.2)
    assert far[0] > 52


def test_a_map_without_points_draws_centre_and_spread():
    groups = tuple(MapGroup(name, 9, (k, 0.0), 2.0) for k, name in enumerate((None, "none")))
    root = ET.fromstring(latent_map(LatentMap("a", 8, (0.5, 0.2), groups)))
    radii = [float(circle.get("r")) for circle in root.iter("circle")]
    assert len(radii) == 2
    assert radii[0] == radii[1] > 10


def test_every_crowd_has_a_sign_of_its_own():
    names = (None, "none", "a", "b", "c", "d")
    groups = tuple(MapGroup(name, 1, (0.0, 0.0), 1.0, ((0.0, 0.0),)) for name in names)
    text = latent_map(LatentMap("x", 8, (0.5, 0.2), groups))
    assert len(set(re.findall(r' d="M[^a-z]*([a-z][^"]*)"', text))) == len(names)


def test_the_page_tells_every_point_in_a_table():
    result = sample_result()
    page = render_html(result)
    for group in result.maps[0].groups:
        for x, y in group.points[:5]:
            assert f"{x:.2f} {y:.2f}" in page
    assert "Where the answers lie" in page
    assert "Where the answers lie" not in render_html(replace(result, maps=()))
    assert "Points are withheld" in render_html(sample_result(gallery="none"))


def test_a_crowd_on_one_spot_is_drawn():
    group = MapGroup("<b>", 3, (0.0, 0.0), 0.0, ((0.0, 0.0),))
    (at,) = drawn(LatentMap("a", 1, (0.0, 0.0), (group,))).values()
    assert all(math.isfinite(number) for number in at[0])
