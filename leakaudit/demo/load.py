"""The demo's subject: shipped networks, rendered people, nothing to download."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from leakaudit.core.errors import WeightsError
from leakaudit.core.rng import Rng
from leakaudit.demo import people as rendered
from leakaudit.demo.networks import DemoEncoder, DemoHead
from leakaudit.models.faces import Faces
from leakaudit.models.oracle import EmbeddingNet, IdentityOracle
from leakaudit.models.prior import Prior, PriorShape
from leakaudit.models.subject import Known, Subject
from leakaudit.models.weights import load_into, load_state, sha256_of

WEIGHTS = Path(__file__).parent / "weights"
FILES = ("encoder", "head", "prior", "oracle")
WORLD = Rng(0, ("demo",))
"""The stream of everything that ships; the scan's own seed doesn't change it."""

PUBLIC_PEOPLE, PUBLIC_PICTURES = 1000, 4
GALLERY, ENROLMENT, ATTACKED = 200, 5, 64


def demo_subject(people_seed: int, *, attacked: int = ATTACKED) -> Subject:
    """The shipped encoder with new rendered people: ``people_seed`` gives 200 private ones.

    ``attacked`` of them have one picture attacked; each has five other pictures enrolled.
    """
    encoder, head, prior, net = (_load(name) for name in FILES)
    assert isinstance(prior, Prior)
    stream = WORLD.derive("private", people_seed)
    private = rendered.draw_people(GALLERY, stream)
    known = rendered.portraits(private, ENROLMENT, stream.derive("enrolment"))
    seen = rendered.portraits(private[:attacked], 1, stream.derive("attacked"))
    oracle = IdentityOracle(net, known.images, known.people, name="demo oracle")
    return Subject(
        encoder=encoder,
        faces=Faces(
            images=seen.images,
            people=seen.people,
            names=tuple(f"person {k + 1}" for k in range(GALLERY)),
            attributes=seen.attributes,
            attribute_names=rendered.ATTRIBUTES,
        ),
        public=public_images(),
        oracle=oracle,
        prior=prior,
        head=head,
        head_name="the demo's own head (layer2, pooling, linear)",
        synthetic=True,
        known=Known(known.images, known.people),
        about={
            "encoder": "demo: ResNet18 stem and layer1",
            "weights_sha256": sha256_of(WEIGHTS / "encoder.safetensors"),
            "layer": "layer1",
            "feature_shape": [64, 16, 16],
            "images": attacked,
            "people": attacked,
            "gallery": GALLERY,
            "public_images": PUBLIC_PEOPLE * PUBLIC_PICTURES,
            "prior_sha256": sha256_of(WEIGHTS / "prior.safetensors"),
            "prior": "given",
            "oracle": "embedding trained on 2,500 further rendered people, nearest enrolment mean",
            "people_seed": people_seed,
        },
        trained=(
            "Encoder, head, prior and oracle ship with leakaudit, trained on rendered people "
            "(python -m leakaudit.demo.build); nobody under audit was among them.",
            "The decoder was trained in this run on the public people.",
        ),
    )


def public_images() -> Tensor:
    """The adversary's public pictures (4000, 3, 64, 64): 1,000 people, four pictures each."""
    stream = WORLD.derive("public")
    public = rendered.draw_people(PUBLIC_PEOPLE, stream)
    return rendered.portraits(public, PUBLIC_PICTURES, stream.derive("scan")).images


def _load(name: str) -> nn.Module:
    """A shipped network in eval mode, without gradients of its own, in float32."""
    path = WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        raise WeightsError(
            "The demo's weights are missing",
            where=str(path),
            todo="Install leakaudit again, or make them: python -m leakaudit.demo.build",
        )
    with torch.random.fork_rng(devices=[]):
        module = blank(name)
    state = {key: value.float() for key, value in load_state(path).items()}
    load_into(module, state, where=str(path))
    module.eval().requires_grad_(False)
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def blank(name: str) -> nn.Module:
    """An untrained network of the demo."""
    makers = {
        "encoder": DemoEncoder,
        "head": DemoHead,
        "prior": lambda: Prior(PriorShape()),
        "oracle": EmbeddingNet,
    }
    return makers[name]()
