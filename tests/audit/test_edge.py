"""The same picture and key give the same bits: whatever batch, order, place and neighbours."""

import contextlib
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from audit.edges import SIZE, Fragile, Mixing, Small, edge, frozen, pictures, quick, small_prior
from leakaudit.audit.edge import LEFT_BARE, NOT_FINITE, NOT_LED, Edge, reference, rows_are_alone
from leakaudit.core.errors import RunError, UsageError
from leakaudit.core.keys import new_key, seed_key
from leakaudit.core.rng import Rng
from leakaudit.defences.base import Workshop
from leakaudit.defences.crafter import Crafter
from leakaudit.defences.crafter_paper import CrafterPaper
from leakaudit.defences.crafter_residual import CrafterResidual
from leakaudit.defences.crafter_z import CrafterZ
from leakaudit.defences.identity import NoDefence
from leakaudit.defences.noise import GaussianNoise
from leakaudit.models.best_response import LatentSearch
from leakaudit.models.encoder import SplitEncoder
from leakaudit.models.preprocessing import Channels, Preprocessing
from leakaudit.models.programs import Batch, Program


@pytest.fixture(scope="module")
def at_edge() -> Edge:
    return edge()


@pytest.fixture(scope="module")
def faces():
    return pictures(10)


@pytest.fixture(scope="module")
def whole(at_edge, faces):
    return at_edge.protect(faces).whole()


def test_order_changes_no_bit(at_edge, faces, whole):
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    assert torch.equal(at_edge.protect(faces[order]).whole(), whole[order])


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_the_size_of_the_batch_changes_no_bit(at_edge, faces, whole, count):
    assert torch.equal(at_edge.protect(faces[:count]).whole(), whole[:count])


def test_neighbours_change_no_bit(at_edge, faces, whole):
    crowd = torch.cat([pictures(3, seed=9), faces[4:5], pictures(2, seed=8)])
    assert torch.equal(at_edge.protect(crowd).whole()[3], whole[4])


def test_a_deployment_with_the_same_key_releases_the_same_bits(faces, whole):
    assert torch.equal(edge().protect(faces).whole(), whole)


def test_another_key_is_another_release(faces, whole):
    other = edge(key=seed_key(2)).protect(faces[:4]).whole()
    assert all(not torch.equal(a, b) for a, b in zip(other, whole, strict=False))


def noise_of(encoder: nn.Module, faces: torch.Tensor) -> torch.Tensor:
    """The noise of one key behind this encoder, a row of unit length a face."""
    at_work = Edge(encoder, None, GaussianNoise(sigma=1.0), seed_key(1), public=faces)
    noise = at_work.protect(faces).whole() - at_work.clean(faces)
    return functional.normalize(noise.flatten(1), dim=1)


def split(layer: str = "0", *, channels: Channels = "rgb", std: float = 1.0) -> SplitEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Identity())
    how = Preprocessing(SIZE, std=(std,) * 3, channels=channels)
    return SplitEncoder(network, layer, preprocessing=how, name="net")


def program(share: float) -> SplitEncoder:
    """A program without tensors, as an ONNX session is one."""
    run = Program(lambda x: share * x, name="p", batch=Batch(), differentiable=False)
    return SplitEncoder(
        run, "last", preprocessing=Preprocessing(SIZE), name="p", weights_sha256=f"{share}"
    )


class Cut(nn.Module):
    """The same tensors, cut where a number says; and it counts its calls."""

    def __init__(self, upto: int) -> None:
        super().__init__()
        self.upto, self.calls = upto, 0
        self.parts = nn.ModuleList(nn.AvgPool2d(3, 1, 1) for _ in range(2))

    def forward(self, x):
        self.calls += 1
        for part in self.parts[: self.upto]:
            x = part(x)
        return x


def test_the_name_by_which_an_encoder_was_asked_for_changes_no_draw(faces):
    named = split()
    named.name = "copy.py:net"
    assert torch.equal(noise_of(named, faces), noise_of(split(), faces))


def test_an_encoder_that_counts_its_calls_keeps_its_draws(faces):
    counting = Cut(1)
    assert torch.equal(noise_of(counting, faces), noise_of(counting, faces))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: split("0"), lambda: split("1")),
        (split, lambda: split(channels="bgr")),
        (split, lambda: split(std=0.5)),
        (lambda: program(1.0), lambda: program(2.0)),
        (lambda: nn.Sequential(nn.AvgPool2d(4)), lambda: nn.Sequential(nn.MaxPool2d(4))),
        (lambda: Cut(1), lambda: Cut(2)),
    ],
    ids=["layer", "channels", "std", "program", "pooling", "number"],
)
def test_encoders_that_share_their_tensors_have_no_draw_in_common(faces, one, other):
    """Else the noise of two releases by one key would cancel out."""
    here, there = noise_of(one(), faces), noise_of(other(), faces)
    assert torch.equal(here, noise_of(one(), faces))
    assert float((here * there).sum(1).abs().max()) < 0.3


def test_public_pictures_that_set_the_scale_have_no_draw_in_common(faces):
    """One draw at two scales, each known from public pictures, would give the feature exactly."""
    encoder, more = split(), torch.cat([faces, 1 - faces])
    noise = []
    for public in (faces, more):
        at_work = Edge(encoder, None, GaussianNoise(sigma=1.0), seed_key(1), public=public)
        noise.append((at_work.protect(faces).whole() - at_work.clean(faces)).flatten(1))
    both = [functional.normalize(drawn, dim=1) for drawn in noise]
    assert float((both[0] * both[1]).sum(1).abs().max()) < 0.3


def test_it_is_deployed_and_releases_in_full_precision_on_its_device(monkeypatch, faces):
    """Else a GPU would make other bits for a class than for the command of the same recipe."""
    entered, told = [], []

    @contextlib.contextmanager
    def noted(device):
        entered.append(device)
        yield
        entered.pop()

    class Noting(Small):
        def forward(self, x):
            told.append(list(entered))
            return super().forward(x)

    monkeypatch.setattr("leakaudit.audit.edge.full_precision", noted)
    at_work = Edge(frozen(Noting()), None, GaussianNoise(sigma=1.0), seed_key(1), public=faces)
    assert told and all(told)
    told.clear()
    at_work.protect(faces[:2])
    assert told and all(told) and not entered


def test_a_plan_over_stored_faces_brings_no_neighbours_in(faces):
    with_plan = edge(plan_size=3)
    alone = with_plan.protect(faces[2:3]).whole()
    assert torch.equal(with_plan.protect(faces[:4]).features[2:3], alone)


def test_an_encoder_that_mixes_its_batch_goes_one_by_one(faces):
    mixing = edge(Mixing())
    assert mixing.block == 1
    assert mixing.fell_back
    alone = mixing.protect(faces[3:4]).whole()
    assert torch.equal(mixing.protect(faces[:5]).whole()[3:4], alone)


def test_the_trial_of_rows_passes_sound_encoders_and_finds_mixing_ones():
    prior = small_prior()
    for network, sound in ((Small(), True), (Mixing(), False)):
        shop = Workshop(frozen(network), reference(prior), prior, seed_key(0))
        assert rows_are_alone(quick(batch=4), shop, 4) is sound


def test_the_trial_of_rows_does_not_measure_what_a_privacy_loss_is_worth(monkeypatch):
    from leakaudit.defences import exchange
    from leakaudit.defences.exchange import Worth

    measured = []
    monkeypatch.setattr(
        exchange, "exchange", lambda measures: measured.append(measures) or Worth(1.5)
    )
    edge = Edge(Small(), small_prior(), replace(quick(), worth=0.0), b"k" * 32)
    assert [edge.deployed.measures] == measured and edge.deployed.worth.value == 1.5


@pytest.mark.parametrize("row", [0, 2, 3])
def test_a_face_without_a_finite_feature_fails_alone(faces, row):
    fragile = edge(Fragile())
    expected = fragile.protect(faces[:4]).whole()
    sick = faces[:4].clone()
    sick[row, :, 0, 0] = 1.0
    made = fragile.protect(sick)
    assert made.faults == {row: NOT_FINITE}
    assert bool(made.features[row].isnan().all())
    rest = [k for k in range(4) if k != row]
    assert torch.equal(made.features[rest], expected[rest])
    with pytest.raises(RunError, match="1 of 4 faces"):
        made.whole()


def test_nothing_but_sick_faces_is_no_crash(faces):
    sick = faces[:2].clone()
    sick[:, :, 0, 0] = 1.0
    assert edge(Fragile()).protect(sick).faults == {0: NOT_FINITE, 1: NOT_FINITE}


def test_a_face_whose_solver_fails_says_why_and_fails_alone(faces, monkeypatch):
    sound = edge()
    expected, release = sound.protect(faces[:4]).whole(), sound.deployed.release

    def failing(images, rng):
        if any(torch.equal(image, faces[1]) for image in images):
            raise RunError("An inner Hessian is singular", todo="Raise the damping")
        return release(images, rng)

    monkeypatch.setattr(sound.deployed, "release", failing)
    made = sound.protect(faces[:4])
    assert list(made.faults) == [1]
    assert "An inner Hessian is singular" in made.faults[1]
    assert torch.equal(made.features[[0, 2, 3]], expected[[0, 2, 3]])
    assert bool(made.loss("privacy_loss")[[0, 2, 3]].isfinite().all())
    assert bool(made.loss("privacy_loss")[1].isnan())


def test_a_release_that_belongs_to_a_batch_is_refused():
    together = replace(quick(), coupling="batch", start_steps=0)
    for how in (together, CrafterPaper()):
        with pytest.raises(UsageError, match="releases of a batch together"):
            Edge(frozen(Small()), small_prior(), how, seed_key(0))


def test_an_undefended_feature_never_leaves(faces):
    made = edge(beta=0.0).protect(faces[:3])
    assert made.faults == dict.fromkeys(range(3), LEFT_BARE)
    assert bool(made.features.isnan().all())


@pytest.mark.parametrize("keep", [None, 0.5])
def test_a_face_that_no_step_led_away_never_leaves(faces, keep):
    """Its release differs from the feature, and is what an adversary's own search would find."""
    few = {"steps": 0, "worth": 1.0, "samples": 30, "search": LatentSearch(steps=3)}
    how = CrafterZ(**few) if keep is None else CrafterResidual(**few, keep=keep)
    at_work = Edge(frozen(Small()), small_prior(), how, seed_key(1))
    made = at_work.protect(faces[:3])
    assert made.faults == dict.fromkeys(range(3), NOT_LED)
    assert bool(made.features.isnan().all())
    led = Edge(frozen(Small()), small_prior(), replace(how, steps=4), seed_key(1)).protect(
        faces[:3]
    )
    assert led.faults == {} and set(led.losses) == {"privacy_loss", "utility_loss"}


def test_no_defence_is_refused():
    with pytest.raises(UsageError, match="protects nothing"):
        Edge(frozen(Small()), small_prior(), NoDefence(), seed_key(0))


def test_noise_is_replayed_by_picture_and_key(faces):
    noisy = Edge(frozen(Small()), small_prior(), GaussianNoise(0.5), seed_key(1))
    first = noisy.protect(faces).whole()
    assert torch.equal(noisy.protect(faces[3:5]).whole(), first[3:5])
    clean = Small()(faces)
    drawn = (first - clean)[:2].flatten(1)
    assert not torch.allclose(drawn[0], drawn[1])  # each picture has noise of its own


def test_the_losses_are_those_of_the_faces_and_not_of_the_padding(at_edge, faces):
    together = at_edge.protect(faces[:4]).losses
    alone = [at_edge.protect(faces[k : k + 1]).losses for k in range(4)]
    for name in ("privacy_loss", "utility_loss"):
        assert torch.equal(together[name], torch.cat([part[name] for part in alone]))


def test_features_are_protected_without_their_pictures(at_edge, faces):
    clean = Small()(faces[:5]).detach()
    made = at_edge.protect_features(clean).features
    assert made.shape == clean.shape
    assert torch.equal(at_edge.protect_features(clean[3:4]).whole(), made[3:4])
    assert float((made - clean)[3].norm() / clean[3].norm()) > 1e-3


def test_a_scan_keeps_its_draws_without_a_key(faces):
    """The bits of a deployment by seed are those of before a key could be given."""
    prior, how = small_prior(), quick(batch=4)
    rng = Rng(5, ("deploy",))
    shop = Workshop(frozen(Small()), faces, prior)
    at_work = how.deploy(shop, rng)
    key = rng.derive("crafter-key").state.to_bytes(8, "big")
    given = how.deploy(Workshop(frozen(Small()), faces, prior, key), rng)
    assert torch.equal(
        at_work.release(faces, Rng(0)).features, given.release(faces, Rng(1)).features
    )


def test_without_replay_the_edge_still_replays(faces):
    fresh = Edge(frozen(Small()), small_prior(), quick(replay=False), seed_key(1), block=4)
    assert fresh.block == 1
    first = fresh.protect(faces[:2]).whole()
    assert torch.equal(fresh.protect(faces[1:2]).whole(), first[1:2])


def test_the_defence_is_the_one_that_was_asked_for(at_edge):
    assert isinstance(at_edge.defence, Crafter)
    assert (at_edge.defence.beta, at_edge.defence.batch) == (2.0, 4)


def test_two_settings_of_one_key_have_no_draw_in_common():
    encoder, faces = Small(), pictures(4)
    key = new_key()
    strong, weak = (Edge(encoder, None, GaussianNoise(s), key, public=faces) for s in (2.0, 4.0))
    bare = strong.clean(faces)
    noise = [(edge.protect(faces).features - bare).flatten() for edge in (strong, weak)]
    assert abs(float(torch.corrcoef(torch.stack(noise))[0, 1])) < 0.2


@pytest.mark.parametrize("switched_off", [torch.no_grad, torch.inference_mode])
def test_it_protects_where_the_caller_has_switched_gradients_off(switched_off):
    images, encoder, prior = pictures(4), frozen(Small()), small_prior()
    with switched_off():
        inside = Edge(encoder, prior, quick(), seed_key(1), block=4).protect(images).whole()
    assert torch.equal(inside, edge().protect(images).whole())


def test_it_protects_in_full_precision_where_the_caller_has_autocast_on(faces, whole):
    at_work = edge()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = at_work.protect(faces).whole()
        anew = edge().protect(faces).whole()
    assert torch.equal(inside, whole) and torch.equal(anew, whole)


class Attending(nn.Module):
    """Features (N, 16, 12) by attention over patches, as of a vision transformer."""

    def __init__(self, *, layer: bool) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.patches = nn.Conv2d(3, 12, 8, 8)
            self.layer = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True)
        self.whole = layer

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        if self.whole:
            return self.layer(tokens)
        return functional.scaled_dot_product_attention(tokens, tokens, tokens)


@pytest.mark.parametrize("layer", [False, True])
def test_encoders_with_attention_are_protected(faces, layer):
    made = edge(Attending(layer=layer)).protect(faces[:4]).whole()
    assert made.shape == (4, 16, 12) and bool(made.isfinite().all())


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        return slope


class OnlyOnce(Small):
    """What has a gradient, and no gradient of that."""

    def forward(self, x):
        return _Once.apply(super().forward(x))


def test_an_encoder_that_can_be_differentiated_only_once_is_told(faces):
    with pytest.raises(UsageError, match="can't be differentiated again"):
        edge(OnlyOnce())
    kept = Edge(OnlyOnce(), None, GaussianNoise(sigma=1.0), seed_key(1), public=faces)
    assert bool(kept.protect(faces[:4]).whole().isfinite().all())  # noise needs no gradient


class _Odd(Small):
    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        if self.how == "no gradient":
            with torch.no_grad():
                return super().forward(x)
        if self.how == "random":
            return super().forward(x) + torch.rand(1)
        if self.how == "half":
            return super().forward(x).bfloat16()
        if self.how == "double":
            return super().forward(x).double()
        if self.how == "a number a picture":
            return super().forward(x).flatten(1).sum(1)
        return super().forward(x) * float("nan")


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("no gradient", UsageError, "there is none"),
        ("random", UsageError, "another feature of the same picture"),
        ("nan", RunError, "NaN or infinite"),
        ("half", UsageError, "bfloat16, in which nothing"),
        ("double", UsageError, "float64, in which nothing"),
        ("a number a picture", UsageError, r"shape \(4,\) for 4 pictures"),
    ],
)
def test_an_encoder_that_cannot_be_protected_is_refused(how, error, words):
    with pytest.raises(error, match=words):
        Edge(_Odd(how), small_prior(), quick(), b"k" * 32)
