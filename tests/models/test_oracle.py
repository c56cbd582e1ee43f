"""The oracle names by the nearest enrolment mean, and its embedding can be trained."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as fn
from toys import PEOPLE, named, normal, toy_faces, toy_oracle

from leakaudit.core.rng import Rng
from leakaudit.models.oracle import EmbeddingNet, IdentityOracle, OracleTraining, train_embedding

FACES = toy_faces(per_person=3)


def test_clearly_different_people_are_told_apart() -> None:
    assert named(FACES, FACES.images) == 1.0
    assert FACES.oracle.gallery_size == PEOPLE


def test_scores_are_cosines_to_the_means_of_normalised_enrolments() -> None:
    vectors = torch.tensor([[3.0, 0], [0, 1], [0, 5], [1, 0]])
    oracle = IdentityOracle(lambda x: x, vectors, torch.tensor([0, 0, 1, 1]), name="plain")
    half = 0.5**0.5  # both people are enrolled with one vector of each axis, however long
    torch.testing.assert_close(oracle.means, torch.full((2, 2), half))
    expected = torch.tensor([[half, half], [-half, -half]])
    torch.testing.assert_close(oracle.scores(torch.tensor([[2.0, 0], [0, -1]])), expected)


def test_names_do_not_depend_on_batch_size_or_on_the_order_of_enrolment() -> None:
    whole = FACES.oracle.embed(FACES.images)
    torch.testing.assert_close(FACES.oracle.embed(FACES.images, batch=1), whole)
    order = torch.randperm(len(FACES.people), generator=Rng(1).torch())
    shuffled = toy_oracle(FACES.images[order], FACES.people[order])
    straight = toy_oracle(FACES.images, FACES.people)
    torch.testing.assert_close(shuffled.means, straight.means, rtol=0, atol=1e-6)


def test_embeddings_are_unit_vectors_for_pictures_of_any_size() -> None:
    net = EmbeddingNet(dimension=12, width=8, size=32).eval()
    for side in (16, 32, 48):
        vectors = net(normal(2, 3, side, side, seed=1).sigmoid())
        assert vectors.shape == (2, 12)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def trained(seed: int, steps: int = 40):
    images = fn.interpolate(FACES.images, size=(32, 32), mode="bilinear")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = EmbeddingNet(dimension=16, width=8, size=32)
    seen = []
    train_embedding(
        images, FACES.people, net=net, training=OracleTraining(steps=steps, batch=24),
        rng=Rng(seed), report=lambda step, loss, accuracy: seen.append((step, loss, accuracy)),
    )  # fmt: skip
    return net, images, seen


def test_training_improves_on_chance_in_few_steps() -> None:
    net, images, seen = trained(1)
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    assert seen[-1][0] == 40 and seen[-1][2] > 3 / PEOPLE
    other = fn.interpolate(toy_faces(per_person=1).images, size=(32, 32), mode="bilinear")
    oracle = IdentityOracle(net, images, FACES.people, name="trained")
    hits = float((oracle.name_faces(other) == torch.arange(PEOPLE)).float().mean())
    assert hits >= 4 / PEOPLE


def test_same_seed_same_embedding() -> None:
    a, b, c = (trained(seed, steps=3)[0].last.weight for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_bytes_are_read_as_pictures_of_0_to_1() -> None:
    whole = (FACES.images[:8] * 255).round().to(torch.uint8)
    nets = []
    for images in (whole, whole.float() / 255):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            net = EmbeddingNet(dimension=8, width=8, size=16)
        how = OracleTraining(steps=2, batch=4, mirror=True)
        nets.append(
            train_embedding(images, FACES.people[:8], net=net, training=how, rng=Rng(1))
        )  # fmt: skip
    assert torch.equal(nets[0].last.weight, nets[1].last.weight)


@pytest.mark.parametrize("index", [0, 5])
def test_a_person_without_a_picture_of_the_gallery_is_still_counted(index: int) -> None:
    people = torch.tensor([index, 7])
    oracle = toy_oracle(FACES.images[:2], people)
    assert oracle.gallery_size == 8
    assert bool(oracle.means.isfinite().all())
