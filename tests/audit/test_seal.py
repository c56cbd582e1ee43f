"""What others' code is lent comes back as it was, or the run ends; copies may be written into."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from audit.toy_subject import SIZE, cheapen, embed, toy_plan, toy_subject, train_once
from leakaudit.attacks import ATTACKS
from leakaudit.attacks.base import Attack, Effort, Guess, ReadyAttack
from leakaudit.audit import run as running
from leakaudit.audit.oracles import _Owned
from leakaudit.audit.run import _prior_marks, run
from leakaudit.audit.seal import Seal, is_ours
from leakaudit.audit.store import RunStore, digest
from leakaudit.core.errors import RunError, UsageError
from leakaudit.core.files import sha256_of_file
from leakaudit.core.threats import WhiteBox
from leakaudit.maths.intervals import Interval
from leakaudit.metrics.base import Metric
from leakaudit.metrics.utility import head_outputs
from leakaudit.models.generators import Prior, PriorShape
from leakaudit.models.oracle import IdentityOracle


class Theirs:
    """Somebody else's attack."""


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 4, 4, stride=4), nn.ReLU()

    def forward(self, images):
        return self.act(self.conv(images))


@pytest.fixture(scope="module")
def subject():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return replace(toy_subject(), encoder=Block().eval().requires_grad_(False), head=None)


def shuffle(subject):
    np.random.default_rng(0).shuffle(subject.public.numpy())


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda s: s.public.sub_(0.5), "the public pictures"),
        (shuffle, "the public pictures"),
        (lambda s: s.faces.images.data.mul_(0.3), "the attacked pictures"),
        (lambda s: s.encoder.conv.weight.data.zero_(), "the encoder"),
        (lambda s: setattr(s.encoder, "act", nn.Softplus()), "the encoder"),
        (lambda s: setattr(s.encoder.conv, "weight", nn.Parameter(torch.ones(4, 3, 4, 4))),
         "the encoder"),
        (lambda s: s.encoder.register_forward_hook(lambda m, x, y: y.detach()), "the encoder"),
        (lambda s: s.encoder.train(), "the encoder"),
        (lambda s: next(s.prior.parameters()).data.add_(1), "the prior"),
        (lambda s: s.oracle.means.neg_(), "the judge"),
    ],
)  # fmt: skip
def test_whoever_changes_what_it_is_lent_ends_the_run(subject, spoil, what):
    own = copy.deepcopy(subject)
    seal = Seal(own, own.public[:64])
    with seal.lent_to(Theirs(), "The attack mine"):
        own.encoder(own.faces.images).sum()  # looking is no change
        own.public.clone().sub_(1)
    refused = pytest.raises(UsageError, match=f"The attack mine changed {what}")
    with refused, torch.no_grad(), seal.lent_to(Theirs(), "The attack mine"):
        spoil(own)


def test_what_is_random_by_itself_is_nobodys_fault(subject):
    own = replace(copy.deepcopy(subject), encoder=nn.Sequential(nn.Dropout(0.5), Block()).train())
    with Seal(own, own.public).lent_to(Theirs(), "The attack mine"):
        pass


def test_what_others_raise_and_set_is_told_and_ends_with_them(subject):
    seal = Seal(subject, subject.public)
    told = pytest.raises(UsageError, match=r"The attack mine raised ZeroDivisionError.*test_seal")
    with told, seal.lent_to(Theirs(), "The attack mine"):
        torch.set_default_dtype(torch.float64)
        1 / 0  # noqa: B018
    assert torch.get_default_dtype() == torch.float32


def test_ours_are_not_looked_after(subject):
    class Watched(Seal):
        def _seen(self):
            raise AssertionError

    ours = ATTACKS.make("blackbox-ridge", {})
    with Watched(subject, subject.public).lent_to(ours, "ours"):
        pass
    assert not is_ours(Theirs())


@dataclass(frozen=True)
class Spoiler(Attack):
    """Packaged elsewhere; it "normalises" the public pictures in place."""

    name: ClassVar[str] = "spoiler"
    holds: ClassVar = WhiteBox
    source: ClassVar[str] = "a test"

    def prepare(self, held, rng):
        held.public.sub_(0.5)
        return Answers()


class Answers(ReadyAttack):
    def reconstruct(self, features, rng):
        return Guess(torch.full((len(features), 3, SIZE, SIZE), 0.5), None, Effort(0, 0))


@dataclass(frozen=True)
class Spoils(Metric):
    """A metric that writes into what it measures, and may answer for another."""

    name: ClassVar[str] = "spoils"
    unit: ClassVar[str] = "share"
    leak_grows: ClassVar = "up"
    source: ClassVar[str] = "a test"
    called: str = "spoils"

    def __call__(self, evidence):
        evidence.originals.zero_()
        if evidence.reconstructions is not None:
            evidence.reconstructions.zero_()
        if self.called == "nothing":
            return None
        told = self.score(evidence, Interval(0.0, 0.0, 0.0, 1))
        return replace(told, metric=self.called)


@pytest.fixture
def scanned(tmp_path, monkeypatch):
    cheapen(monkeypatch, tmp_path)
    train_once(monkeypatch)

    def scan(subject, *attacks, more=(), name="run"):
        plan = toy_plan(tmp_path, attacks=["blackbox-ridge"], head=subject.head is not None)
        plan = replace(plan, attacks=(*attacks, *plan.attacks))
        with monkeypatch.context() as patch:
            made = running.Audit._made_metrics
            patch.setattr(running.Audit, "_made_metrics", lambda self: [*more, *made(self)])
            store = RunStore(tmp_path / name, resume=False)
            found = run(subject, plan, store, (), lambda what, share: None)
        return {(s.defence, s.attack, s.metric): s.value for s in found.scores}

    return scan


def test_a_packaged_attack_that_writes_into_public_pictures_is_refused(scanned):
    with pytest.raises(UsageError, match="The attack spoiler changed the public pictures"):
        scanned(toy_subject(), Spoiler())


def test_a_packaged_metric_gets_a_copy_and_answers_for_itself_only(scanned):
    plain = scanned(toy_subject(), name="plain")
    spoilt = scanned(toy_subject(), more=(Spoils(),), name="spoilt")
    assert {key: spoilt[key] for key in plain} == plain
    with pytest.raises(UsageError, match="The metric spoils gave a score of identification"):
        scanned(toy_subject(), more=(Spoils("identification"),), name="other")
    with pytest.raises(UsageError, match="The metric spoils gave a NoneType"):
        scanned(toy_subject(), more=(Spoils("nothing"),), name="none")


def test_a_rest_that_begins_in_place_leaves_the_released_features_alone():
    features = torch.randn(6, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    before = features.clone()
    rest = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten())
    assert head_outputs(rest, features).shape == (6, 16)
    assert torch.equal(features, before)


def test_a_judge_that_answers_nan_is_named():
    def sometimes(images):
        made = embed(images)
        return torch.where((images.flatten(1).mean(1) < 0.1)[:, None], float("nan"), made)

    subject = toy_subject()
    judge = IdentityOracle(sometimes, subject.public,
                           torch.arange(len(subject.public)), name="theirs")  # fmt: skip
    dark = torch.cat([subject.public[:3], torch.zeros(2, 3, SIZE, SIZE)])
    with pytest.raises(RunError, match=r"The judge theirs gives NaN or infinite .* 2 of 5"):
        judge.embed(dark)


def test_a_judge_that_normalises_in_place_leaves_the_pictures_alone():
    class Normalising(nn.Module):
        def forward(self, images):
            return images.sub_(0.5).div_(0.5).mean((2, 3))

    images = toy_subject().faces.images[:4]
    before = images.clone()
    assert _Owned(Normalising(), None)(images).shape == (4, 3)
    assert torch.equal(images, before)


def test_a_plan_tells_the_code_of_what_another_package_brings(tmp_path):
    plan = toy_plan(tmp_path, attacks=["blackbox-ridge"])
    told = replace(plan, attacks=(Spoiler(), *plan.attacks)).to_json()["attacks"]
    assert told["spoiler"] == {"code_sha256": sha256_of_file(Path(__file__))}
    assert "code_sha256" not in told["blackbox-ridge"]


def test_a_prior_of_the_same_numbers_and_other_code_is_another_prior():
    """``--resume`` takes nothing that was made with a generator whose code has changed since."""

    class Twisted(Prior):
        def forward(self, z):
            return super().forward(z).flip(-1)

    shape = PriorShape(size=32, latent=4, width=8)
    plain, twisted = Prior(shape).eval(), Twisted(shape).eval()
    twisted.load_state_dict(plain.state_dict())
    marks = [_prior_marks(prior) for prior in (plain, plain, twisted)]
    assert digest(*marks[0]) == digest(*marks[1]) != digest(*marks[2])
    assert _prior_marks(None) == ("",)
