"""No attack, ours or installed beside ours, may be measured by an answer that is none."""

import math
from dataclasses import replace

import pytest
import torch

from audit.toy_subject import cheapen, toy_plan, toy_subject, train_once
from leakaudit.attacks import decoder
from leakaudit.attacks.base import Effort, Guess
from leakaudit.audit.guesses import checked_guess
from leakaudit.audit.run import run
from leakaudit.audit.store import RunStore
from leakaudit.core.errors import RunError, UsageError

SHAPE = (3, 8, 8)
IMAGES = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
NAN = IMAGES.clone()
NAN[2, 0, 0, 0] = math.nan


def guess(images=None, **more):
    return Guess(images, None, Effort(0, 0), **more)


def checked(made):
    return checked_guess(made, "mine", 4, shape=SHAPE, people=7)


@pytest.mark.parametrize(
    "made",
    [
        guess(IMAGES),
        guess(IMAGES * 1.0009),
        guess(embeddings=torch.randn(4, 5)),
        guess(scores=torch.zeros(4, 7)),
        guess(scores=torch.eye(7)[:4].log()),  # -inf rules a name out
        replace(guess(IMAGES), loss=torch.zeros(4), latents=torch.zeros(4, 2)),
    ],
)
def test_a_guess_of_each_form_is_taken_as_it_is(made):
    assert checked(made) is made


@pytest.mark.parametrize(
    ("made", "error", "why"),
    [
        (IMAGES, UsageError, "mine gave a Tensor, not a Guess"),
        (guess(), UsageError, "none of them.*one of images, embeddings and scores"),
        (guess(IMAGES, scores=torch.zeros(4, 7)), UsageError, "images and scores"),
        (guess(IMAGES[:3]), UsageError, r"of shape \(3, 3, 8, 8\), not \(4, 3, 8, 8\)"),
        (guess(IMAGES[..., :4]), UsageError, r"not \(4, 3, 8, 8\)"),
        (guess(IMAGES * 255), UsageError, r"from \S+ to 25\d, not in \[0, 1\]"),
        (guess(IMAGES - 0.5), UsageError, r"from -0\.\d+ to"),
        (guess((IMAGES * 255).byte()), UsageError, "uint8"),
        (guess(NAN), RunError, "images with NaN or infinite numbers for 1 of 4 faces"),
        (guess(embeddings=torch.randn(5, 4)), UsageError, r"\(5, 4\), not \(4, d\)"),
        (guess(embeddings=torch.full((4, 2), math.inf)), RunError, "4 of 4 faces"),
        (guess(scores=torch.zeros(4, 6)), UsageError, r"\(4, 6\), not \(4, 7\)"),
        (replace(guess(IMAGES), loss=torch.zeros(3)), UsageError, r"loss of shape \(3,\)"),
        (replace(guess(IMAGES), loss=torch.tensor(1.0)), UsageError, r"loss of shape \(\)"),
        (replace(guess(IMAGES), loss=NAN[:, 0, 0, 0]), RunError, "a loss with NaN"),
        (guess(IMAGES.numpy()), UsageError, "images as a ndarray, not a torch.Tensor"),
        (guess(embeddings=[[1.0]] * 4), UsageError, "embeddings as a list"),
        (replace(guess(IMAGES), latents=[1] * 4), UsageError, "latents as a list"),
        (guess(scores=torch.full((4, 7), math.inf)), RunError, "4 of 4 faces"),
        (guess(scores=torch.full((4, 7), math.nan)), RunError, "4 of 4 faces"),
    ],
)
def test_any_other_is_refused(made, error, why):
    with pytest.raises(error, match=why) as caught:
        checked(made)
    assert type(caught.value) is error


def test_an_attack_that_breaks_down_in_a_scan_is_no_attack_that_found_nothing(
    tmp_path, monkeypatch
):
    cheapen(monkeypatch, tmp_path)
    train_once(monkeypatch)
    whole = decoder.DecoderTrained.reconstruct

    def broken(self, features, rng):
        made = whole(self, features, rng)
        return replace(made, images=made.images * math.nan)

    monkeypatch.setattr(decoder.DecoderTrained, "reconstruct", broken)
    plan = toy_plan(tmp_path, attacks=["blackbox-decoder"])
    with pytest.raises(RunError, match="blackbox-decoder gave images with NaN"):
        run(
            toy_subject(),
            plan,
            RunStore(tmp_path / "run", resume=False),
            (),
            lambda what, share: None,
        )
