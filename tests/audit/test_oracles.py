"""Judges: who may judge, how their rows are named, and what is doubted when they differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from audit.toy_subject import SIZE, Pooling, embed, people, toy_plan, toy_subject
from leakaudit.audit.gates import judge as judge_gates
from leakaudit.audit.gates import parse_gate
from leakaudit.audit.oracles import JudgeInput, asked_judges, make_judges, short_of
from leakaudit.audit.run import run
from leakaudit.audit.store import RunStore
from leakaudit.core.errors import UsageError, WeightsError
from leakaudit.core.rng import Rng
from leakaudit.core.types import is_rate
from leakaudit.models.faces import Faces
from leakaudit.models.oracle import IdentityOracle, OracleTraining
from leakaudit.report.words import is_share, metric_title

FEW = OracleTraining(steps=2, batch=4)


def enrolled() -> Faces:
    images, who = people(6, 3, Rng(5))
    return Faces(images, who, tuple(f"p{k}" for k in range(6)))


def made(specs: list[str], *weights: Path, how: JudgeInput | None = None, encoder=None):
    return make_judges(
        asked_judges(specs, weights), how or JudgeInput(), encoder=encoder or Pooling(),
        enrolled=enrolled(), size=SIZE, training=FEW, rng=Rng(0), trained=[], say=lambda _: None,
    )  # fmt: skip


JUDGE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3 * 16, 40)

    def forward(self, x):
        return self.last(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))

class Seen(Net):
    def forward(self, x):
        return x[:, :, 0, 0].repeat(1, 2)

class Odd(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)

def make():
    torch.manual_seed(3)
    return Net()

def other():
    torch.manual_seed(4)
    return Net()

def seen():
    return Seen()

def maps():
    return Odd(lambda x: x)

def pair():
    return Odd(lambda x: (x, x))

def nan():
    return Odd(lambda x: x.flatten(1) * float("nan"))

def small():
    return Odd(lambda x: x[:1].flatten(1))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "judge.py").write_text(JUDGE)
    return tmp_path / "judge.py"


# Names and pairs


@pytest.mark.parametrize(
    ("spec", "short"),
    [
        ("trained", "trained"),
        ("facenet:casia-webface", "facenet-casia-webface"),
        ("/some where/my judge.py:make", "my-judge"),
        ("pkg.faces:make", "faces"),
        ("timm:resnet18.a1", "timm-resnet18-a1"),
        ("dir/net.v2.onnx", "net-v2"),
        ("@@.py:f", "judge"),
    ],
)
def test_a_judges_short_name_fits_into_a_gate(spec: str, short: str) -> None:
    assert short_of(spec) == short
    gate = parse_gate(f"crafter.worst.identification-{short}>0.1")
    assert gate.metric == f"identification-{short}"


def test_weights_go_in_order_to_those_that_take_one() -> None:
    asked = asked_judges(["a.py:f", "trained", "b.py:f", "b.py:g"], [Path("-"), Path("w.pt")])
    assert [one.weights for one in asked] == [None, None, Path("w.pt"), None]
    assert [one.short for one in asked] == ["a", "trained", "b", "b-2"]
    assert [one.spec for one in asked_judges([], [])] == ["trained"]


def test_more_weights_than_judges_and_a_judge_twice_are_refused() -> None:
    with pytest.raises(UsageError, match="2 weights files for 1 judges"):
        asked_judges(["trained", "a.py:f"], [Path("v"), Path("w")])
    with pytest.raises(UsageError, match="named twice"):
        asked_judges(["a.py:f", "a.py:f"], [])


def test_rates_are_known_by_every_judges_name() -> None:
    assert is_rate("identification-facenet-vggface2") and is_rate("identification_top5")
    assert not is_rate("feature_similarity-facenet-vggface2") and not is_rate("ssim")
    assert metric_title("identification-a-b") == "Identification, judge a-b"
    assert is_share("identification-a", "share of faces")


# Making them


def test_several_judges_are_made_in_order_and_know_the_same_people(file: Path) -> None:
    judges = made([f"{file}:make", "trained", f"{file}:other"])
    assert [oracle.short for oracle in judges.oracles] == ["judge", "trained", "judge-2"]
    assert {oracle.gallery_size for oracle in judges.oracles} == {6}
    assert judges.oracles[0].name == "the user's judge.py:make"
    assert len(set(judges.sha256)) == 3


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        ("maps", "of shape (2, 3, 32, 32) for 2 pictures"),
        ("pair", "gives a tuple"),
        ("nan", "NaN or infinite"),
        ("small", "of shape (1, 3072) for 2 pictures"),
    ],
)
def test_what_is_no_embedding_is_refused(file: Path, factory: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        made(["trained", f"{file}:{factory}"])
    assert told in str(caught.value) and caught.value.exit_code == 2


class Shares(Pooling):
    """An encoder under audit that carries the judge's layer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.carried = network


def test_every_judge_that_shares_weights_with_the_encoder_is_refused(file: Path) -> None:
    from leakaudit.models.modules import load_module

    encoder = Shares(load_module(f"{file}:other"))
    made([f"{file}:make"], encoder=encoder)
    for specs in ([f"{file}:other"], ["trained", f"{file}:make", f"{file}:other"]):
        with pytest.raises(WeightsError, match="shares weights with the encoder under audit"):
            made(specs, encoder=encoder)


def test_two_judges_with_the_same_weights_are_one(file: Path) -> None:
    copy = file.with_name("copy.py")
    copy.write_text(JUDGE)
    with pytest.raises(WeightsError, match="shares weights with another judge"):
        made([f"{file}:make", f"{copy}:make"])


def test_a_published_judge_without_its_file_says_how_to_provide_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LEAKAUDIT_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        made(["trained", "facenet:vggface2"])
    assert "--oracle-weights FILE" in str(caught.value)
    assert "leakaudit fetch facenet:vggface2" in str(caught.value)


class Embeds(nn.Module):
    """In InceptionResnetV1's place; tells what reaches it."""

    seen: Tensor

    def __init__(self, pretrained: str | None = None, classify: bool = False) -> None:
        assert pretrained is None and not classify, "it would be downloaded"
        super().__init__()
        self.last = nn.Linear(3, 8)

    def forward(self, x: Tensor) -> Tensor:
        type(self).seen = x
        return self.last(x.mean((2, 3)))


def test_facenet_judges_from_a_file_on_its_own_pictures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("facenet_pytorch.InceptionResnetV1", Embeds)
    state = Embeds().state_dict() | {"logits.weight": torch.zeros(8631, 1)}
    torch.save(state, tmp_path / "w.pt")
    judges = made(["facenet:vggface2"], tmp_path / "w.pt")
    assert judges.oracles[0].name == "facenet:vggface2"
    judges.oracles[0].embed(torch.ones(1, 3, SIZE, SIZE))
    assert Embeds.seen.shape == (1, 3, 160, 160)
    assert torch.allclose(Embeds.seen, torch.tensor((255 - 127.5) / 128), atol=1e-6)
    with pytest.raises(WeightsError, match="vggface2, not casia-webface's"):
        made(["facenet:casia-webface"], tmp_path / "w.pt")
    with pytest.raises(UsageError, match="No judge takes a preprocessing"):
        made(["facenet:vggface2"], tmp_path / "w.pt", how=JudgeInput(size=64))


def test_a_users_judge_gets_the_preprocessing_that_was_said(file: Path) -> None:
    how = JudgeInput(size=16, mean=(0.5, 0.0, 0.0), std=(0.5, 1.0, 1.0), channels="bgr")
    (plain,) = made([f"{file}:seen"]).oracles
    (wished,) = made([f"{file}:seen"], how=how).oracles
    red = torch.zeros(1, 3, SIZE, SIZE)
    red[:, 0] = 0.75
    unit = torch.nn.functional.normalize
    assert torch.allclose(plain.embed(red), unit(torch.tensor([[0.75, 0, 0] * 2]), dim=1))
    # Blue comes first: (0 - .5) / .5 = -1, and red, now last, stays .75.
    assert torch.allclose(wished.embed(red), unit(torch.tensor([[-1.0, 0, 0.75] * 2]), dim=1))


# Judging


class Blind:
    """Sees only how bright a picture is: one number for 48 people."""

    def __call__(self, images: Tensor) -> Tensor:
        bright = images.mean((1, 2, 3))
        return torch.stack([bright.cos(), bright.sin()], 1)


def other_judge(look, short: str) -> IdentityOracle:
    known, who = people(48, 3, Rng(0, ("toy",)).derive("private"))
    kept = torch.cat([known[1::3], known[2::3]])
    return IdentityOracle(look, kept, who[::3].repeat(2), name=short, short=short)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("judges")
    with pytest.MonkeyPatch.context() as patch:
        from audit.toy_subject import cheapen

        cheapen(patch, folder)
        subject = replace(
            toy_subject(), judges=(other_judge(embed, "twin"), other_judge(Blind(), "blind"))
        )
        attacks = ["blackbox-decoder", "linkage"]
        plan = toy_plan(folder, "gaussian:sigma=0.1", attacks=attacks, steps=300)
        store = RunStore(folder / "run", resume=False)
        return run(subject, plan, store, (), lambda what, share: None)


def row(found, defence: str, attack: str, metric: str):
    (score,) = [
        s for s in found.scores if (s.defence, s.attack, s.metric) == (defence, attack, metric)
    ]
    return score


def test_a_judge_like_the_main_one_says_the_same_under_his_own_name(found) -> None:
    for metric in ("identification", "identification_top5", "feature_similarity"):
        for attack in ("original", "blackbox-decoder", "control-prior", "control-shuffled"):
            ours = row(found, "none", attack, metric)
            his = row(found, "none", attack, f"{metric}-twin")
            assert ours.value == his.value and ours.per_face == his.per_face
            assert (ours.low, ours.high, ours.unit) == (his.low, his.high, his.unit)


def test_an_attack_without_a_picture_is_not_judged_by_others_and_that_is_said(found) -> None:
    score = row(found, "none", "linkage", "identification-twin")
    assert score.value is None and score.note is not None and "'twin' can't judge it" in score.note
    assert row(found, "none", "linkage", "identification").value is not None


def test_worst_rows_floors_and_ceilings_are_each_judges_own(found) -> None:
    main = row(found, "none", "worst", "identification")
    his = row(found, "none", "worst", "identification-twin")
    one = row(found, "none", "blackbox-decoder", "identification-twin")
    assert his.per_face == one.per_face  # linkage counts for the main judge only
    assert his.value is not None and main.value is not None and his.value <= main.value
    # One guess against two: the blind adversary of the main judge is allowed more.
    assert his.floor is not None and main.floor is not None and his.floor < main.floor
    assert his.floor == one.floor
    blind = row(found, "none", "worst", "identification-blind")
    assert blind.ceiling == row(found, "none", "original", "identification-blind").value
    assert not [s for s in found.scores if s.metric.startswith("identification_excess-")]


def test_each_judge_is_doubted_by_himself_and_only_on_his_own_rows(found) -> None:
    weak = [d for d in found.doubts if d.id == "weak-oracle"]
    (blind,) = weak
    assert "The judge blind names only" in blind.why and blind.severity == "serious"
    assert set(blind.metrics) == {
        "identification-blind",
        "identification_top5-blind",
        "feature_similarity-blind",
    }
    gates = judge_gates(
        [f"none.worst.identification{judge}>1" for judge in ("-blind", "-twin", "")],
        found.scores, (), found.doubts, ["none", "gaussian:sigma=0.1"],
    )  # fmt: skip
    assert [gate.status for gate in gates] == ["inconclusive", "pass", "pass"]
    assert "weak-oracle" in gates[0].reason


def test_judges_that_differ_strongly_are_told_and_those_that_agree_are_not(found) -> None:
    (apart,) = [d for d in found.doubts if d.id == "judges-apart"]
    assert apart.severity == "note" and "the judge blind" in apart.why
    assert ("none", "blackbox-decoder") in apart.rows
