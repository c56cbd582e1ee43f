import math

import pytest
import torch

from leakaudit.maths.image_priors import PublicSpace, total_variation


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def world(count, *, seed):
    """Pictures (count, 3, 8, 10) of five independent directions about grey, deviation 0.1 each."""
    axes, _ = torch.linalg.qr(normal(240, 5, seed=1))
    return 0.5 + (0.1 * normal(count, 5, seed=seed) @ axes.T).view(count, 3, 8, 10)


@pytest.mark.parametrize(("down", "right"), [(0.3, 0.0), (0.0, 0.2), (0.3, 0.4)])
def test_the_variation_of_a_ramp_is_the_length_of_its_slope(down, right):
    rows, columns = torch.arange(6.0)[:, None], torch.arange(7.0)[None]
    ramp = (down * rows + right * columns).expand(2, 3, 6, 7)
    expected = torch.full((2,), math.sqrt(down**2 + right**2))
    torch.testing.assert_close(total_variation(ramp), expected, rtol=1e-4, atol=0)


def test_variation_is_a_faces_own_and_a_flat_picture_has_next_to_none():
    images = torch.stack([torch.full((3, 8, 8), 0.7), normal(3, 8, 8), 2 * normal(3, 8, 8)])
    told = total_variation(images)
    assert float(told[0]) == pytest.approx(1e-3)
    assert float(told[2]) == pytest.approx(2 * float(told[1]), rel=1e-4)
    assert torch.equal(total_variation(images[1:2])[0], told[1])


def test_every_picture_has_coordinates_and_they_lead_back_to_it():
    space = PublicSpace.fit(world(60, seed=2))
    for images in (world(4, seed=3), torch.rand(4, 3, 8, 10, generator=torch.Generator())):
        told = space.coordinates(images)
        assert told.shape == (4, space.width)
        torch.testing.assert_close(space.pictures(told), images, rtol=0, atol=1e-5)
    assert torch.equal(space.pictures(torch.zeros(1, space.width))[0], space.mean)


def test_the_directions_are_those_in_which_public_pictures_vary():
    space = PublicSpace.fit(world(400, seed=2))
    assert len(space.deviation) == 5
    torch.testing.assert_close(space.deviation, torch.full((5,), 0.1), rtol=0.2, atol=0)
    torch.testing.assert_close(
        space.directions @ space.directions.T, torch.eye(5), rtol=0, atol=1e-5
    )
    gaps = (world(50, seed=3) - space.mean).flatten(1)
    left = gaps - (gaps @ space.directions.T) @ space.directions
    assert float(left.abs().max()) < 1e-4


def test_new_pictures_of_the_public_kind_are_white():
    noise = torch.fft.irfft2(  # a stationary remainder beside the five directions
        torch.fft.rfft2(normal(900, 3, 8, 10, seed=5)) * (0.05 / (1 + torch.arange(6.0))),
        s=(8, 10),
    )
    images = world(900, seed=2) + noise
    told = PublicSpace.fit(images[:800], directions=5).coordinates(images[800:])
    for part in (told[:, :5], told[:, 5:]):
        assert float(part.square().mean()) == pytest.approx(1.0, rel=0.15)


@pytest.mark.parametrize("public", [torch.full((9, 3, 8, 8), 0.4), torch.rand(1, 3, 8, 8)])
def test_public_pictures_that_do_not_vary_leave_all_directions_open(public):
    space = PublicSpace.fit(public)
    assert len(space.deviation) == 0
    wanted = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(space.pictures(space.coordinates(wanted)), wanted, rtol=0, atol=1e-4)


def test_there_are_at_most_a_third_as_many_directions_as_pictures():
    images = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert len(PublicSpace.fit(images).deviation) == 40 // 3
    assert len(PublicSpace.fit(images, directions=7).deviation) == 7


def test_not_even_rounding_depends_on_how_many_pictures_there_are():
    space = PublicSpace.fit(world(60, seed=2) + 0.02 * normal(60, 3, 8, 10, seed=6))
    told = normal(11, space.width, seed=7)
    whole = space.pictures(told)
    for size in (1, 3, 8):
        assert torch.equal(torch.cat([space.pictures(u) for u in told.split(size)]), whole)
        back = torch.cat([space.coordinates(x) for x in whole.split(size)])
        assert torch.equal(back, space.coordinates(whole))
