"""A user's own defence and attack: what they are handed, what they may answer, what is told."""

import hashlib
import random
import re
from dataclasses import FrozenInstanceError, asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import SIDE, ToyFaces, named, pooling_encoder, toy_faces

from leakaudit.attacks.base import Queries
from leakaudit.attacks.foreign import foreign_attack
from leakaudit.audit.pipeline import Pipeline
from leakaudit.core.errors import InputError, LeakauditError, UnknownNameError, UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.specs import parse_factory
from leakaudit.core.threats import THREATS, AdaptiveBlackBox, BlackBox, NoFeature, WhiteBox
from leakaudit.defences.base import Workshop
from leakaudit.defences.foreign import foreign_defence

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
HEAD = "import random\nimport numpy as np\nimport torch\n"


@pytest.fixture(scope="module")
def faces() -> ToyFaces:
    return toy_faces(per_person=2)


@pytest.fixture
def write(tmp_path):
    """Writes the user's file and gives ``file.py:make`` with settings."""

    def written(text, settings=""):
        path = tmp_path / "mine.py"
        path.write_text(HEAD + text)
        return parse_factory(f"{path}:make{settings}", what="defence")

    return written


@pytest.fixture
def released(write, faces):
    """What a user's defence releases of the toy people."""

    def release(text, settings="", *, seed=2, encoder=None, images=None):
        defence = foreign_defence(write(text, settings))
        shop = Workshop(encoder or pooling_encoder(), faces.public, None)
        seen = faces.images if images is None else images
        return defence.deploy(shop, Rng(1)).release(seen, Rng(seed)).features

    return release


def method(body, name="protect_features(self, features, rng)", more=""):
    """A file whose factory gives an object with one method."""
    return (
        f"class Mine:\n    {more or 'pass'}\n    def {name}:\n        {body}\n"
        "def make(): return Mine()\n"
    )


# -- defences ------------------------------------------------------------------------------------


def test_features_are_what_the_user_makes_of_the_clean_ones(released, faces):
    clean = pooling_encoder()(faces.images)
    assert torch.equal(released(method("return 1 - 2 * features")), 1 - 2 * clean)


def test_a_plain_function_counts_as_protect_features(released, faces):
    text = "def make(scale=3.0):\n    return lambda features, rng: scale * features\n"
    clean = pooling_encoder()(faces.images)
    assert torch.equal(released(text), 3 * clean)
    assert torch.equal(released(text, ":scale=.5"), 0.5 * clean)


def test_pictures_are_protected_before_the_encoder(released, faces):
    made = released(method("return 1 - images", "protect_images(self, images, rng)"))
    torch.testing.assert_close(made, 1 - pooling_encoder()(faces.images))


def test_a_module_of_a_package_is_named_by_its_dotted_name(tmp_path, monkeypatch, faces):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "own.py").write_text("def make():\n    return lambda f, rng: f + 1\n")
    monkeypatch.chdir(tmp_path)
    defence = foreign_defence(parse_factory("shop.own:make", what="defence"))
    assert (defence.name, defence.spec) == ("own-make", "shop.own:make")
    assert len(defence.sha256) == 64


@pytest.mark.parametrize(
    "draw",
    [
        "torch.randn(features.shape, generator=rng)",
        "torch.randn(features.shape)",
        "torch.from_numpy(np.random.rand(*features.shape))",
        "random.random()",
    ],
)
def test_randomness_is_the_releases_own_whoever_draws_it(released, draw):
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    text = method(f"return features + {draw}")
    first = released(text)
    assert (torch.initial_seed(), random.random()) == (7, random.Random(7).random())
    assert np.random.rand() == np.random.RandomState(7).rand()
    assert torch.equal(released(text), first)
    assert not torch.equal(released(text, seed=3), first)


def test_what_a_factory_draws_is_drawn_once_for_a_deployment(write, faces):
    text = method(
        "return features + self.key", more="def __init__(self): self.key = torch.rand(())"
    )
    defence = foreign_defence(write(text))
    shop = Workshop(pooling_encoder(), faces.public, None)
    one, other = (defence.deploy(shop, Rng(seed)) for seed in (1, 2))
    first = one.release(faces.images, Rng(3)).features
    assert torch.equal(one.release(faces.images, Rng(4)).features, first)
    assert not torch.equal(other.release(faces.images, Rng(3)).features, first)


def test_a_users_object_keeps_its_state_within_a_deployment_and_not_beyond(write, faces):
    text = method("self.n += 1; return features + self.n", more="n = 0")
    defence = foreign_defence(write(text))
    clean = pooling_encoder()(faces.images)
    for _ in range(2):
        deployed = defence.deploy(Workshop(pooling_encoder(), faces.public, None), Rng(1))
        for count in (1, 2):
            assert torch.equal(deployed.release(faces.images, Rng(2)).features, clean + count)


def test_a_defence_that_writes_into_what_it_is_given_changes_nothing_of_ours(released, faces):
    images = faces.images.clone()
    for text in (
        method("features.zero_(); return features"),
        method("images.zero_(); return images", "protect_images(self, images, rng)"),
    ):
        released(text, encoder=torch.nn.Identity())
        assert torch.equal(faces.images, images)


def test_a_defence_may_follow_gradients_where_the_audit_takes_none(released):
    body = "f = features.requires_grad_(); return torch.autograd.grad((f ** 2).sum(), f)[0]"
    with torch.no_grad():
        made = released(method(body))
    assert not made.requires_grad
    weighted = "return features * torch.nn.Parameter(torch.ones(()))"
    assert not released(method(weighted)).requires_grad


def test_double_numbers_are_released_as_the_features_kind(released):
    assert released(method("return features.double()")).dtype == torch.float32


def test_a_defence_that_says_it_couples_a_batch_is_believed_and_any_other_is_not(write):
    for more, coupling in (
        ("", "unknown"), ('coupling = "image"', "unknown"), ('coupling = "batch"', "batch"),
    ):  # fmt: skip
        assert foreign_defence(write(method("return features", more=more))).coupling == coupling


def test_a_defence_meets_its_adversary_in_the_audits_own_pipeline(write, faces):
    """The generator advances from release to release, so that fresh noise is fresh."""
    noisy = method("return features + torch.randn(features.shape, generator=rng)")
    deployed = foreign_defence(write(noisy)).deploy(
        Workshop(pooling_encoder(), faces.public, None), Rng(1)
    )
    pipeline = Pipeline(deployed, Rng(3), label="mine")
    seen = pipeline.release(faces.public[:4], 50)
    assert not pipeline.repeats(faces.public[:2])
    clean = pooling_encoder()(faces.public[:4])
    assert float((seen.mean(0) - clean).square().mean()) == pytest.approx(1 / 50, rel=0.3)


def test_the_manifest_holds_spec_settings_and_the_files_hash(write, tmp_path):
    text = "def make(a=1, path=''):\n    return lambda features, rng: features\n"
    defence = foreign_defence(write(text, f":a=2,path={tmp_path}/key.bin"))
    assert asdict(defence) == {
        "spec": "mine.py:make:a=2,path=key.bin",
        "settings": {"a": 2, "path": "key.bin"},
        "sha256": hashlib.sha256((tmp_path / "mine.py").read_bytes()).hexdigest(),
    }
    assert str(tmp_path) not in repr(defence)
    with pytest.raises(FrozenInstanceError):
        defence.name = "another"
    assert foreign_defence(write(text + "\n")).sha256 != defence.sha256


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def make(): return 3", "int, which has neither protect_features nor protect_images"),
        ("def make(): pass", "NoneType, which has neither"),
        (
            "class M:\n    def protect_features(s, f, rng): 0\n"
            "    def protect_images(s, x, rng): 0\ndef make(): return M()",
            "a M with both protect_features and protect_images",
        ),
        (
            method("0", "protect_features(self, features)"),
            r"can't be called with \(features, rng\)",
        ),
        ("def make(): return lambda f: f", r"can't be called with \(features, rng\).*Write def"),
        ("class M:\n    protect_images = 3\ndef make(): return M()", "is a int, not a method"),
        (method("0", more='coupling = "batsh"'), "coupling 'batsh'.*batch"),
        ("def make(features, rng): return features", "needs features, rng.*settings only"),
        ("make = 3", "'make' is a int, not a factory"),
        ("def mak(): pass", "Unknown factory 'make'.*mak"),
        ("def make(): raise OSError('no\\nkey')", "make raised OSError: no key.*mine.py, line 4"),
        ("import gone_for_good", "mine.py raised ModuleNotFoundError.*mine.py, line 4"),
        ("def make(: pass", "mine.py raised SyntaxError.*mine.py, line 4"),
        ("raise SystemExit(3)", "mine.py raised SystemExit"),
    ],
)
def test_what_is_no_defence_is_told_before_any_work(write, text, why):
    with pytest.raises(UsageError, match=why) as caught:
        foreign_defence(write(text))
    assert "mine.py" in str(caught.value) and caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (":sigm=1", "setting of mine.py:make 'sigm'.*Did you mean sigma"),
        ("", "needs sigma.*mine.py:make:sigma=VALUE"),
    ],
)
def test_settings_that_a_factory_does_not_take_are_told(write, settings, why):
    with pytest.raises(UsageError, match=why):
        foreign_defence(write("def make(sigma): return lambda f, rng: f", settings))


def test_a_factory_without_settings_says_so(write):
    with pytest.raises(UsageError, match=r"mine\.py:make takes no settings"):
        foreign_defence(write("def make(): return lambda f, rng: f", ":a=1"))


def test_a_missing_file_is_told():
    with pytest.raises(UsageError, match=r"no such Python file.*gone\.py"):
        foreign_defence(parse_factory("gone.py:make", what="defence"))


IMAGE = "protect_images(self, images, rng)"


@pytest.mark.parametrize(
    ("text", "kind", "why"),
    [
        (method("return features[1:]"), UsageError, r"shape \(15, 3, 4, 4\), not \(16, 3, 4, 4\)"),
        (method("return features.flatten(1)"), UsageError, r"shape \(16, 48\), not"),
        (method("return None"), UsageError, "gave a NoneType, not a torch.Tensor"),
        (method("return features.numpy()"), UsageError, "gave a ndarray"),
        (method("return features.round().long()"), UsageError, "torch.int64, not floating"),
        (method("features[:3] *= np.nan; return features"), InputError, "in 3 of 16 rows"),
        (method("return features / 0"), InputError, "NaN or infinite numbers in 16 of 16 rows"),
        (method("raise KeyError('secret')"), UsageError, "raised KeyError: 'secret'.*line 7"),
        (method("return features @ features"), UsageError, "raised|shape"),
        (method("return images * 255", IMAGE), InputError, r"pictures from .* to .*\[0, 1\]"),
        (method("return images[:, :1]", IMAGE), UsageError, r"shape \(16, 1, 16, 16\)"),
        (method("return images * float('inf')", IMAGE), InputError, "in 16 of 16 rows"),
    ],
)
def test_a_wrong_release_is_told_with_file_and_method(released, text, kind, why):
    if "features @ features" in text:
        text = method("return features @ torch.ones(7, 7)")
    with pytest.raises(kind, match=why) as caught:
        released(text)
    assert isinstance(caught.value, LeakauditError)
    assert "protect_images" in str(caught.value) or "protect_features" in str(caught.value)
    assert "mine.py:make" in str(caught.value)


def test_running_out_of_memory_is_not_blamed_on_the_user(released):
    with pytest.raises(MemoryError):
        released(method("raise MemoryError"))


# -- attacks -------------------------------------------------------------------------------------

RIDGE = """
class Ridge:
    holds = "BlackBox"
    def prepare(self, held, rng):
        f, x = held.query(held.public).flatten(1), held.public.flatten(1)
        self.f, self.x = f.mean(0), x.mean(0)
        f, x = f - self.f, x - self.x
        self.w = torch.linalg.solve(f.T @ f + 1e-3 * torch.eye(f.shape[1]), f.T @ x)
    def reconstruct(self, features):
        return ((features.flatten(1) - self.f) @ self.w + self.x).view(-1, 3, 16, 16)
def make(): return Ridge()
"""


def attacker(prepare="pass", reconstruct="return self.x", holds="BlackBox", more=""):
    return (
        f"class Mine:\n    holds = {holds!r}\n    {more or 'pass'}\n"
        f"    def prepare(self, held, rng):\n        self.x = held.public[:16]\n        {prepare}\n"
        f"    def reconstruct(self, features):\n        {reconstruct}\ndef make(): return Mine()\n"
    )


def black(faces, query=None):
    return BlackBox(faces.public, query or pooling_encoder())


def test_a_users_attack_names_the_toy_people(write, faces):
    attack = foreign_attack(write(RIDGE), name="mine-make")
    guess = attack.prepare(black(faces), Rng(1)).reconstruct(
        pooling_encoder()(faces.images), Rng(2)
    )
    assert (attack.name, attack.holds, attack.control) == ("mine-make", BlackBox, False)
    assert named(faces, guess.images) >= 0.9
    assert guess.images.shape == (16, 3, SIDE, SIDE)
    assert guess.loss is None and guess.embeddings is None
    assert guess.effort.passes == len(faces.public)
    assert guess.effort.converged and "isn't known" in guess.effort.note


def test_white_box_passes_are_counted_with_their_gradients_and_anew_each_time(write, faces):
    text = attacker(
        "self.held = held; x = held.public[:5].clone().requires_grad_(); held.encoder(x).sum()",
        "self.held.encoder(self.held.public[:4]); return self.x", "WhiteBox",
    )  # fmt: skip
    attack = foreign_attack(write(text), name="mine")
    ready = attack.prepare(WhiteBox(faces.public, pooling_encoder(), None), Rng(1))
    features = pooling_encoder()(faces.images)
    for _ in range(2):
        assert ready.reconstruct(features, Rng(2)).effort.passes == 3 * 5 + 4


def test_each_preparation_has_an_object_of_its_own(write, faces):
    """An adaptive attack is prepared for each defence; one preparation never spoils another."""
    attack = foreign_attack(write(attacker("self.x = held.query(self.x)")), name="mine")
    features = pooling_encoder()(faces.images)
    ready = [attack.prepare(black(faces, lambda x, k=k: x * k), Rng(1)) for k in (0.5, 0.25)]
    made = [one.reconstruct(features, Rng(2)).images for one in ready]
    torch.testing.assert_close(made[0], 2 * made[1])


def test_what_lies_outside_of_a_picture_is_clipped_and_said(write, faces):
    text = attacker(reconstruct="return torch.linspace(-.2, 1.2, 4).repeat(16, 3, 16, 4)")
    ready = foreign_attack(write(text), name="mine").prepare(black(faces), Rng(1))
    guess = ready.reconstruct(pooling_encoder()(faces.images), Rng(2))
    assert float(guess.images.min()) == 0 and float(guess.images.max()) == 1
    assert guess.details["clipped"] == 0.5
    assert "50% of its values" in guess.effort.note


@pytest.mark.parametrize("scaled", ["255 * x", "2 * x - 1"])
def test_pictures_on_another_scale_are_no_attack_that_found_nothing(write, faces, scaled):
    text = attacker(reconstruct=f"x = torch.rand(16, 3, 16, 16); return {scaled}")
    ready = foreign_attack(write(text), name="mine").prepare(black(faces), Rng(1))
    with pytest.raises(UsageError, match=r"from -?\d.* far outside \[0, 1\].*scale it back"):
        ready.reconstruct(pooling_encoder()(faces.images), Rng(2))


def test_an_adaptive_attack_asks_the_defence_and_what_it_asks_is_told(write, faces):
    text = attacker("held.release(self.x, 3)", holds="AdaptiveBlackBox", more="queries = (16, 3)")
    attack = foreign_attack(write(text), name="mine")
    assert attack.queries_ahead() == Queries(16, 3)
    asked = []

    def release(images, count):
        asked.append((len(images), count))
        return torch.stack([pooling_encoder()(images)] * count)

    held = AdaptiveBlackBox(faces.public, pooling_encoder(), release)
    guess = attack.prepare(held, Rng(1)).reconstruct(pooling_encoder()(faces.images), Rng(2))
    assert asked == [(16, 3)]
    assert "asked for 48 releases" in guess.effort.note


def test_an_attack_that_looks_often_is_handed_all_releases(write, faces):
    text = attacker(
        reconstruct="return features.mean(0).repeat_interleave(4, 2).repeat_interleave(4, 3)",
        holds="AdaptiveBlackBox", more="looks = 5",
    )  # fmt: skip
    attack = foreign_attack(write(text), name="mine")
    assert attack.looks() == 5
    held = AdaptiveBlackBox(faces.public, pooling_encoder(), lambda x, k: x)
    many = pooling_encoder()(faces.images) + torch.linspace(-1, 1, 5).view(5, 1, 1, 1, 1)
    guess = attack.prepare(held, Rng(1)).reconstruct(many, Rng(2))
    assert named(faces, guess.images) >= 0.9


def test_optional_words_have_plain_defaults(write):
    attack = foreign_attack(write(attacker()), name="mine")
    assert (attack.looks(), attack.queries_ahead(), attack.needs) == (1, Queries(0, 0), ())
    needy = foreign_attack(write(attacker(more='needs = "prior"')), name="mine")
    assert needy.needs == ("prior",)


@pytest.mark.parametrize("draw", ["torch.rand(())", "np.random.rand()", "random.random()"])
def test_an_attacks_randomness_is_the_audits(write, faces, draw):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    text = attacker(f"self.a = {draw}", f"return self.x * float(self.a) * float({draw})")
    attack = foreign_attack(write(text), name="mine")
    features = pooling_encoder()(faces.images)

    def made(first, second):
        return attack.prepare(black(faces), Rng(first)).reconstruct(features, Rng(second)).images

    assert torch.equal(made(1, 2), made(1, 2))
    assert not torch.equal(made(1, 2), made(3, 2))
    assert not torch.equal(made(1, 2), made(1, 3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("holds", "prepare"),
    [
        ("BlackBox", "held.public.zero_()"),
        ("BlackBox", "held.public[:3] += 1"),
        ("BlackBox", "x = held.public.numpy(); x *= 255"),
        ("WhiteBox", "held.encoder.weight.data.zero_(); held.encoder.weight.mul_(0)"),
        ("WhiteBox", "held.prior.weight.data.mul_(2)"),
        ("WhiteBox", "held.prior.bias.add_(1)"),
    ],
)
def test_an_attack_that_changes_what_it_is_lent_is_refused(write, faces, holds, prepare):
    encoder = torch.nn.Conv2d(3, 3, 4, 4).requires_grad_(False)
    public = faces.public.clone()
    prior = torch.nn.Linear(4, 4).requires_grad_(False)
    held = {"BlackBox": BlackBox(public, encoder), "WhiteBox": WhiteBox(public, encoder, prior)}
    with pytest.raises(UsageError, match=r"mine\.py:make changed the public pictures or a net"):
        foreign_attack(write(attacker(prepare, holds=holds)), name="m").prepare(held[holds], Rng(1))


def test_a_network_with_nan_in_it_is_lent_unchanged(write, faces):
    prior = torch.nn.Linear(4, 4).requires_grad_(False)
    prior.register_buffer("unused", torch.full((3,), float("nan")))
    held = WhiteBox(faces.public, torch.nn.Conv2d(3, 3, 4, 4).requires_grad_(False), prior)
    foreign_attack(write(attacker(holds="WhiteBox")), name="m").prepare(held, Rng(1))


def test_the_features_stay_as_they_are(write, faces):
    features = pooling_encoder()(faces.images)
    kept = features.clone()
    text = attacker(reconstruct="features.zero_(); return self.x")
    foreign_attack(write(text), name="m").prepare(black(faces), Rng(1)).reconstruct(
        features, Rng(2)
    )
    assert torch.equal(features, kept)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (attacker(holds="BlakBox"), "threat model 'BlakBox'.*Did you mean.*BlackBox"),
        (attacker(holds="Control"), "threat model 'Control'"),
        (attacker(holds=3), "threat model '3'"),
        (attacker().replace("holds =", "held ="), "doesn't say what it holds.*one of BlackBox"),
        (attacker().replace("prepare(self, held, rng)", "ready(self)"), r"without prepare\(held"),
        (attacker().replace("reconstruct(", "rebuild("), r"without reconstruct\(features\)"),
        (
            attacker().replace("self, held, rng", "self, held"),
            r"can't be called with \(held, rng\)",
        ),
        (attacker().replace("self, features", "self"), r"can't be called with \(features\)"),
        (attacker(more="looks = 0"), "looks of mine.py:make is 0"),
        (attacker(more="looks = 2.5"), "not a whole number"),
        (attacker(more="looks = True"), "not a whole number"),
        (attacker(more="looks = 4"), "BlackBox sees one release.*Hold AdaptiveBlackBox"),
        (attacker(more="queries = 10"), "BlackBox can't query.*Hold AdaptiveBlackBox"),
        (attacker(holds="Informed", more="queries = (1, 2, 3)"), r"queries .* is \(1, 2, 3\)"),
        (attacker(holds="Informed", more="queries = -1"), "queries .* is -1"),
        (attacker(more='needs = ("prio",)'), "need 'prio'.*prior"),
        (attacker(more="needs = 3"), "needs of mine.py:make is 3"),
    ],
)
def test_what_is_no_attack_is_told_before_any_work(write, text, why):
    with pytest.raises(UsageError, match=why) as caught:
        foreign_attack(write(text), name="mine")
    assert "mine.py" in str(caught.value) and caught.value.exit_code == 2


def test_a_typo_in_holds_names_the_nearest(write):
    with pytest.raises(UnknownNameError) as caught:
        foreign_attack(write(attacker(holds="AdaptivWhiteBox")), name="mine")
    assert caught.value.near[0] == "AdaptiveWhiteBox"


@pytest.mark.parametrize(
    ("text", "kind", "why"),
    [
        (attacker("raise ValueError('boom')"), UsageError, "prepare of .*ValueError: boom.*line 9"),
        (attacker("held.encoder"), UsageError, "prepare of .*AttributeError.*encoder"),
        (attacker(reconstruct="1 / 0"), UsageError, "reconstruct of .*ZeroDivisionError.*line 11"),
        (attacker(reconstruct="return self.x[:3]"), UsageError, r"\(3, 3, 16, 16\), not \(16,"),
        (attacker(reconstruct="return self.x.mean(1)"), UsageError, r"\(16, 16, 16\), not"),
        (attacker(reconstruct="return self.x / 0"), InputError, "NaN or infinite"),
        (attacker(reconstruct="return (255 * self.x).byte()"), UsageError, "torch.uint8, not"),
        (attacker(reconstruct="return [self.x]"), UsageError, "gave a list"),
    ],
)
def test_what_an_attack_does_wrong_is_told_with_file_and_method(write, faces, text, kind, why):
    attack = foreign_attack(write(text), name="mine")
    with pytest.raises(kind, match=why) as caught:
        attack.prepare(black(faces), Rng(1)).reconstruct(pooling_encoder()(faces.images), Rng(2))
    assert "mine.py:make" in str(caught.value)


# -- the examples of the documentation -----------------------------------------------------------


def test_the_examples_of_the_documentation_meet_each_other(faces):
    """Static, the defence looks safe; the attack that learnt from its releases names most."""
    spec = parse_factory(f"{EXAMPLES}/my_defence.py:hide:keep=0.7,sigma=0.02", what="defence")
    deployed = foreign_defence(spec).deploy(Workshop(pooling_encoder(), faces.public, None), Rng(1))
    pipeline = Pipeline(deployed, Rng(3), label="hide")
    attack = foreign_attack(
        parse_factory(f"{EXAMPLES}/my_attack.py:ridge:penalty=0.001", what="attack"), name="ridge"
    )
    seen = pipeline.made(faces.images, Rng(4)).features
    clean = pooling_encoder()

    def guessed(release):
        held = AdaptiveBlackBox(faces.public, clean, release)
        return named(faces, attack.prepare(held, Rng(1)).reconstruct(seen, Rng(2)).images)

    assert guessed(pipeline.release) >= 0.8
    assert guessed(lambda x, k: clean(x).expand(k, *[-1] * 4)) <= 0.5
    assert attack.queries_ahead() == Queries(1000, 1)


@pytest.mark.parametrize("name", ["my_defence.py", "my_attack.py"])
def test_the_examples_are_short(name):
    lines = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()
    assert 18 <= len([line for line in lines if line.strip()]) <= 35


HELD_BY = re.compile(r"^\| `(\w+)` \| (all|`\w+`(?:, `\w+`)*) \| ", re.MULTILINE)


def test_the_documentation_names_every_field_that_an_adversary_holds_and_who_holds_it():
    text = (EXAMPLES.parent / "extending.md").read_text(encoding="utf-8")
    kinds = {name: kind for name, kind in THREATS.items() if kind is not NoFeature}
    told = {
        field: set(kinds) if who == "all" else set(re.findall(r"\w+", who))
        for field, who in HELD_BY.findall(text)
    }
    held: dict[str, set[str]] = {}
    for name, kind in kinds.items():
        for field in fields(kind):
            held.setdefault(field.name, set()).add(name)
    assert told == held


def test_the_documentation_shows_the_examples_that_are_tested():
    text = (EXAMPLES.parent / "extending.md").read_text(encoding="utf-8")
    for name in ("my_defence.py", "my_attack.py"):
        code = (EXAMPLES / name).read_text(encoding="utf-8")
        assert f"(examples/{name})" in text
        command = next(line for line in code.splitlines() if line.startswith("leakaudit scan"))
        assert command.split(":")[0] in text
