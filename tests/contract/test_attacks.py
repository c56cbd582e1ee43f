"""What every attack in the registry promises, ours and those that other packages bring."""

from __future__ import annotations

import dataclasses
import inspect
from functools import cache
from typing import Any

import pytest
import torch
from small import SMALL
from torch import Tensor
from toys import PEOPLE, SIDE, ToyFaces, ToyHead, pooling_encoder, toy_faces

from leakaudit.attacks import ATTACKS, CONTROLS
from leakaudit.attacks.base import Attack, Guess, ReadyAttack
from leakaudit.attacks.latent import WhiteBoxLatent
from leakaudit.core.rng import Rng
from leakaudit.core.threats import THREATS, Bench, ThreatModel, WhiteBox

DRAWN = {"control-prior"}  # its row i is the i-th draw, so slices of a batch start over
CHANCE = 1 / PEOPLE

every_attack = pytest.mark.parametrize("name", ATTACKS.names())


@cache
def faces() -> ToyFaces:
    return toy_faces(per_person=2)


@cache
def features() -> Tensor:
    return pooling_encoder()(faces().images)


def attack(name: str) -> Attack:
    return ATTACKS.make(name, SMALL.get(name, {}))


def held(kind: type[ThreatModel]) -> ThreatModel:
    """All that this adversary may hold about the toy people, and nothing else."""
    encoder = pooling_encoder()
    things: dict[str, Any] = {
        "public": faces().public,
        "query": encoder,
        "encoder": encoder,
        "prior": faces().prior,
        "head": ToyHead(),
        "release": lambda x, count: torch.stack([encoder(x)] * count),
        "known": faces().images,
        "labels": faces().people,
        "recogniser": faces().oracle.embed,
        "bench": Bench(),
    }
    return kind(**{field.name: things[field.name] for field in dataclasses.fields(kind)})


@cache
def ready(name: str) -> ReadyAttack:
    return attack(name).prepare(held(attack(name).holds), Rng(1, (name,)))


def seen(name: str, features: Tensor) -> Tensor:
    """Features as the attack looks at them: alone, or as several releases of each picture."""
    looks = attack(name).looks()
    return features if looks == 1 else torch.stack([features] * looks)


@cache
def guess(name: str) -> Guess:
    return ready(name).reconstruct(seen(name, features()), Rng(2))


def told(guess: Guess) -> Tensor:
    """What the guess says of each face, as a picture, an embedding, or scores of names."""
    parts = [part for part in (guess.images, guess.embeddings, guess.scores) if part is not None]
    assert len(parts) == 1
    return parts[0]


def names(guess: Guess) -> Tensor:
    """The person that the guess names, (N,)."""
    oracle = faces().oracle
    if guess.scores is not None:
        return guess.scores.argmax(1)
    if guess.embeddings is not None:
        return (guess.embeddings @ oracle.means.T).argmax(1)
    assert guess.images is not None
    return oracle.name_faces(guess.images)


@every_attack
def test_a_guess_is_pictures_or_embeddings_or_scores(name: str) -> None:
    made = told(guess(name))
    assert len(made) == len(features())
    assert bool(made.isfinite().all()) and not made.requires_grad
    images, embeddings, scores = guess(name).images, guess(name).embeddings, guess(name).scores
    if images is not None:
        assert images.shape[1:] == (3, SIDE, SIDE)
        assert float(images.min()) >= 0 and float(images.max()) <= 1
    if embeddings is not None:
        assert torch.allclose(embeddings.norm(dim=1), torch.ones(len(embeddings)), atol=1e-4)
    assert scores is None or scores.shape[1] == PEOPLE


@every_attack
def test_each_face_has_its_own_loss_or_none_has(name: str) -> None:
    loss = guess(name).loss
    assert loss is None or (loss.shape == (len(features()),) and bool(loss.isfinite().all()))


@every_attack
def test_the_effort_is_told(name: str) -> None:
    effort = guess(name).effort
    assert effort.passes >= 0 and effort.steps >= 0
    assert all(isinstance(point, float) for point in effort.curve)
    if attack(name).control:
        return
    assert effort.passes > 0 and len(effort.curve) > 1
    assert effort.curve[-1] < effort.curve[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Again:
    """A second preparation and guess from the same seeds, and whether each thing stayed put."""

    made: Tensor
    global_randomness: bool
    public: bool
    features: bool


@cache
def again(name: str) -> Again:
    """Trains once more for all that hold the second time against the first."""
    public, given = faces().public.clone(), features().clone()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    fresh = attack(name).prepare(held(attack(name).holds), Rng(1, (name,)))
    made = told(fresh.reconstruct(seen(name, features()), Rng(2)))
    unmoved = torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)  # a first guess that is made later doesn't start from this state
    return Again(made, unmoved, torch.equal(public, faces().public), torch.equal(given, features()))


@every_attack
def test_same_seed_same_bits(name: str) -> None:
    assert torch.equal(again(name).made, told(guess(name)))


@every_attack
def test_global_randomness_is_neither_read_nor_moved(name: str) -> None:
    assert again(name).global_randomness
    assert torch.equal(again(name).made, told(guess(name)))


@every_attack
def test_inputs_are_untouched(name: str) -> None:
    assert again(name).public
    assert again(name).features


@every_attack
@pytest.mark.parametrize("size", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_results_do_not_depend_on_batch_size(name: str, size: int) -> None:
    if name in DRAWN:
        pytest.skip("row i is the i-th draw")
    few = features()[:6]
    parts = [ready(name).reconstruct(seen(name, f), Rng(2)) for f in few.split(size)]
    made = torch.cat([told(part) for part in parts])
    # A search in float32 multiplies differences of rounding; what it names must be the same.
    torch.testing.assert_close(made, told(guess(name))[: len(few)], rtol=0, atol=1e-4)
    found = torch.cat([names(part) for part in parts])
    assert torch.equal(found, names(guess(name))[: len(few)])


@every_attack
def test_a_face_does_not_feel_the_others_of_its_batch(name: str) -> None:
    swapped = features().clone()
    swapped[1:] = features()[1:].flip(0)
    made = told(ready(name).reconstruct(seen(name, swapped), Rng(2)))
    torch.testing.assert_close(made[0], told(guess(name))[0], rtol=0, atol=1e-5)


@every_attack
def test_reconstructions_are_the_same_bits_whatever_becomes_of_the_originals(name: str) -> None:
    originals = faces().images.clone()
    looked_at = seen(name, pooling_encoder()(originals))
    originals.copy_(originals.flip(0))
    shuffled = ready(name).reconstruct(looked_at, Rng(2))
    originals.uniform_(generator=torch.Generator().manual_seed(0))
    replaced = ready(name).reconstruct(looked_at, Rng(2))
    assert torch.equal(told(shuffled), told(guess(name)))
    assert torch.equal(told(replaced), told(guess(name)))


@every_attack
def test_reconstruction_is_handed_features_and_randomness_only(name: str) -> None:
    assert list(inspect.signature(ready(name).reconstruct).parameters) == ["features", "rng"]
    assert attack(name).holds in THREATS.values()


@every_attack
def test_configuration_is_frozen_and_the_docstring_names_the_source(name: str) -> None:
    kind = ATTACKS.find(name)
    assert dataclasses.is_dataclass(kind) and kind.name == name
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack(name).name = "another"  # type: ignore[misc]
    assert kind.source
    told = " ".join((kind.__doc__ or "").split())
    assert kind.source.split(",")[0].split(" ")[0] in told
    assert kind.control == (name in CONTROLS)


@every_attack
def test_undefended_toy_people_are_recovered_and_controls_are_not(name: str) -> None:
    rate = float((names(guess(name)) == faces().people).float().mean())
    if attack(name).control:
        assert name == "control-attributes" or rate <= 3 * CHANCE
    else:
        assert rate >= 6 * CHANCE


@every_attack
def test_the_plan_can_ask_for_the_passes_ahead(name: str) -> None:
    assert attack(name).passes_ahead(2) <= attack(name).passes_ahead(20)


def test_latent_passes_are_those_that_were_made() -> None:
    counted = []

    class Counting(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            counted.append(len(x) * (3 if x.requires_grad else 1))
            return pooling_encoder()(x)

    how = attack("whitebox-latent")
    assert isinstance(how, WhiteBoxLatent)
    fresh = how.prepare(WhiteBox(faces().public, Counting(), faces().prior), Rng(1))
    made = fresh.reconstruct(features(), Rng(2)).effort.passes
    # The last look at each start has no backward pass, and isn't counted as a step.
    looks = 3 * len(features()) * how.restarts
    assert made <= sum(counted) <= made + looks
