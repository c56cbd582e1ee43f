import json
from dataclasses import replace
from types import SimpleNamespace

import jsonschema  # type: ignore[import-untyped]
import pytest
import torch

from audit.toy_subject import Broken, Constant, embed, people, toy_plan, toy_subject
from leakaudit.attacks import decoder, latent
from leakaudit.audit.run import Audit
from leakaudit.audit.scan import ScanOptions, scan
from leakaudit.audit.store import RunStore
from leakaudit.core.errors import InputError, RunError, UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.types import Score
from leakaudit.defences.crafter_residual import CrafterResidual
from leakaudit.models.oracle import IdentityOracle
from leakaudit.report.json import SCHEMA_PATH, parse_result, result_text

FEW = {"attacked": 8, "gallery": 12}


def quiet(what, share):
    """Progress that nobody watches."""


def audit(tmp_path, *defences, subject=None, resume=False, progress=quiet, gates=(), **plan):
    store = RunStore(tmp_path / "run", resume=resume)
    options = ScanOptions(gates=gates, gallery="redacted", command="leakaudit scan")
    made = toy_plan(tmp_path, *defences, **{"steps": 12, **plan})
    return scan(subject or toy_subject(**FEW), made, store, options, progress)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One whole audit, of three defences, and what it said on its way."""
    told = []
    result = audit(
        tmp_path_factory.mktemp("run"), "gaussian:sigma=0.5", "crafter",
        progress=lambda what, share: told.append((what, share)),
    )  # fmt: skip
    return result, told


def test_the_result_is_what_the_schema_says_and_comes_back(finished):
    result, _ = finished
    text = result_text(result)
    schema = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    assert result_text(parse_result(text, where="here")) == text


def test_every_row_is_there_once(finished):
    result, _ = finished
    attacks = {"blackbox-decoder", "whitebox-latent"}
    floors = {"control-prior", "control-mean", "control-attributes", "control-shuffled"}
    worst = {"worst-static", "worst", "chosen"}
    for label in ("none", "gaussian:sigma=0.5", "crafter"):
        rows = [s for s in result.scores if s.defence == label]
        names = {s.attack for s in rows if s.metric == "identification"}
        assert names == attacks | floors | worst | ({"original"} if label == "none" else set())
        assert len({(s.attack, s.metric) for s in rows}) == len(rows)
        assert {s.metric for s in rows if s.attack == "worst"} == {
            "identification", "identification_top5", "identification_excess",
            "verification", "feature_similarity", "ssim", "psnr", "lpips", "epsilon_pii",
            "epsilon_rel",
        }  # fmt: skip
        utility = {u.metric for u in result.utility if u.defence == label}
        assert utility == {"auc", "accuracy", "auc:bright", "auc:red"}
        assert {c.attack for c in result.convergence if c.defence == label} >= attacks


def test_scores_lie_within_their_intervals(finished):
    result, _ = finished
    for score in result.scores:
        if score.value is not None:
            assert score.low <= score.value <= score.high, score
            assert score.n == FEW["attacked"]
        else:
            assert "unavailable" in score.note


def test_settings_of_one_defence_draw_the_same_and_share_what_does_not_depend_on_them(
    tmp_path, monkeypatch
):
    seen, deploy = [], CrafterResidual.deploy

    def deployed(self, workshop, rng):
        seen.append((self.beta, rng.state, workshop.kept))
        return deploy(self, workshop, rng)

    monkeypatch.setattr(CrafterResidual, "deploy", deployed)
    few = "crafter-residual:samples=40,steps=1,search.steps=2,beta="
    audit(tmp_path, few + "1", few + "2", "gaussian")
    (one, draws, kept), (two, again, shared) = seen
    assert (one, two) == (1, 2) and draws == again
    assert kept is shared and kept


def test_unavailable_metrics_say_why(finished):
    result, _ = finished
    assert "AlexNet" in result.score("none", "worst", "lpips").note


def test_a_planted_leak_is_broken(tmp_path):
    subject = toy_subject(attacked=24, gallery=30)
    result = audit(tmp_path, subject=subject, attacks=["blackbox-decoder"], steps=40)
    worst = result.score("none", "worst", "identification")
    controls = [
        s.high for s in result.scores
        if s.attack.startswith("control-") and s.metric == "identification"
    ]  # fmt: skip
    assert worst.value >= 0.9
    assert worst.low > max(controls)
    assert "no-power" not in {doubt.id for doubt in result.doubts}


def test_progress_goes_up_from_zero_to_one(finished):
    _, told = finished
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 0.8 < shares[-1] <= 1
    assert any("crafter" in what for what, _ in told)


def test_adversaries_are_told_with_what_they_hold(finished):
    result, _ = finished
    held = {a.threat: a for a in result.adversaries}
    assert set(held) == {"BlackBox", "WhiteBox", "Control"}
    assert "private images" in held["BlackBox"].never_holds


def test_the_drop_of_none_is_zero(finished):
    result, _ = finished
    assert {u.drop for u in result.utility if u.defence == "none"} == {0.0}


def test_the_gallery_has_three_people_and_no_faces_where_they_are_redacted(finished):
    result, _ = finished
    assert len(result.gallery) == 3
    assert {picture.png for row in result.gallery for picture in row.pictures} == {None}


def test_the_same_seed_gives_the_same_scores(finished, tmp_path):
    torch.manual_seed(99)
    again = audit(tmp_path, "gaussian:sigma=0.5", "crafter")
    assert again.scores == finished[0].scores
    assert again.utility == finished[0].utility
    assert again.doubts == finished[0].doubts


def test_another_seed_gives_other_noise_and_a_lone_defence_the_same(finished, tmp_path):
    alone = audit(tmp_path, "gaussian:sigma=0.5")
    known = [s for s in finished[0].scores if s.defence in ("none", "gaussian:sigma=0.5")]
    assert sorted(map(repr, alone.scores)) == sorted(map(repr, known))
    other = audit(tmp_path, seed=1)
    assert [s for s in other.scores if s.defence == "none"] != [
        s for s in alone.scores if s.defence == "none"
    ]


def test_shuffling_the_originals_leaves_every_reconstruction_as_it_is(tmp_path, monkeypatch):
    seen = []
    real = decoder.DecoderTrained.reconstruct

    def watched(self, features, rng):
        made = real(self, features, rng)
        seen.append(made.images)
        return made

    monkeypatch.setattr(decoder.DecoderTrained, "reconstruct", watched)
    subject = toy_subject(**FEW)
    faces = subject.faces
    other = replace(faces, people=faces.people.roll(1))
    audit(tmp_path, subject=subject, attacks=["blackbox-decoder"])
    audit(tmp_path, subject=replace(subject, faces=other), attacks=["blackbox-decoder"])
    assert torch.equal(seen[0], seen[1])


def test_features_that_are_not_numbers_are_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"8 of 8 features hold NaN.*defence none") as caught:
        audit(tmp_path, subject=toy_subject(Broken(), **FEW))
    assert caught.value.exit_code == 2


def test_a_constant_encoder_leaks_nothing_and_is_doubted(tmp_path):
    result = audit(tmp_path, subject=toy_subject(Constant()), gates=("identification>0.5",))
    control = max(
        s.high for s in result.scores
        if s.attack.startswith("control-") and s.metric == "identification"
    )  # fmt: skip
    worst = result.score("none", "worst", "identification")
    assert worst.low <= control
    assert worst.value < 0.2
    assert {"constant-feature", "no-power"} <= {doubt.id for doubt in result.doubts}
    assert result.verdict.status == "inconclusive"


def test_no_attack_learns_from_pictures_that_it_is_tried_on(tmp_path):
    subject, plan = toy_subject(**FEW), toy_plan(tmp_path, "crafter", steps=12)
    made = Audit(subject, plan, RunStore(tmp_path / "run", resume=False), quiet)
    tried = made._trials.flatten(1)
    assert len(tried) == 8
    for attack in (*plan.attacks, *plan.controls):
        held = made._held(attack, None).public
        assert len(held) == len(subject.public) - min(24, len(subject.public) // 8)
        assert torch.cdist(tried, held.flatten(1)).min() > 0


def test_an_audit_without_prior_and_head_goes_through(tmp_path):
    subject = toy_subject(prior=False, head=False, **FEW)
    result = audit(tmp_path, subject=subject, prior=False, head=False)
    assert result.utility == ()
    assert result.score("none", "worst", "identification").floor is None
    assert result.score("none", "worst", "epsilon_pii") is None
    assert "no-white-box" in {doubt.id for doubt in result.doubts}


def test_a_bad_gate_is_refused_before_any_work(tmp_path):
    with pytest.raises(UsageError):
        audit(tmp_path, gates=("identification",), progress=lambda *_: pytest.fail("it worked"))


def _once(monkeypatch, kind, error, *, call):
    """Raises ``error`` in the ``call``-th reconstruction of this attack."""
    real, calls = kind.reconstruct, []

    def stopped(self, features, rng):
        calls.append(1)
        if len(calls) == call:
            raise error
        return real(self, features, rng)

    monkeypatch.setattr(kind, "reconstruct", stopped)
    return calls


@pytest.mark.parametrize("kind", [decoder.DecoderTrained, latent.LatentReady])
def test_interrupted_and_resumed_equals_uninterrupted(finished, tmp_path, monkeypatch, kind):
    defences = ("gaussian:sigma=0.5", "crafter")
    calls = _once(monkeypatch, kind, KeyboardInterrupt(), call=2)
    with pytest.raises(KeyboardInterrupt):
        audit(tmp_path, *defences)
    assert len(calls) == 2
    again = audit(tmp_path, *defences, resume=True)
    assert again.scores == finished[0].scores
    assert again.utility == finished[0].utility
    assert [replace(row, seconds=0) for row in again.convergence] == [
        replace(row, seconds=0) for row in finished[0].convergence
    ]
    assert again.doubts == finished[0].doubts


def test_a_resumed_audit_makes_nothing_twice(tmp_path, monkeypatch):
    audit(tmp_path, "gaussian:sigma=0.5", steps=3)
    for kind in (decoder.DecoderTrained, latent.LatentReady):
        monkeypatch.setattr(kind, "reconstruct", lambda *_: pytest.fail("it was made again"))
    audit(tmp_path, "gaussian:sigma=0.5", resume=True, steps=3)


def test_another_seed_or_setting_is_not_resumed_from(tmp_path, monkeypatch):
    audit(tmp_path, attacks=["blackbox-decoder"], steps=3)
    for other in ({"seed": 1, "steps": 3}, {"steps": 4}):
        calls = _once(monkeypatch, decoder.DecoderTrained, RuntimeError(), call=0)
        audit(tmp_path, attacks=["blackbox-decoder"], resume=True, **other)
        assert len(calls) == 1


def test_an_attack_that_may_start_from_another_one_is_made_again_with_it(tmp_path, monkeypatch):
    """The searches start from the decoder's guess: another decoder, another start."""
    both = ["blackbox-decoder", "whitebox-latent"]
    audit(tmp_path, attacks=both, steps=3)
    calls = _once(monkeypatch, latent.LatentReady, RuntimeError(), call=0)
    audit(tmp_path, attacks=both, steps=3, resume=True)
    assert calls == []
    audit(tmp_path, attacks=both, steps=4, resume=True)
    assert len(calls) == 1


def test_what_was_made_for_another_judge_is_not_resumed_from(tmp_path, monkeypatch):
    """Attacks name and choose by the recogniser: what they kept lies in its space."""
    audit(tmp_path, attacks=["blackbox-decoder"], steps=3)
    other = toy_subject(**FEW)
    known, who = people(FEW["gallery"], 3, Rng(0, ("toy",)).derive("private"))
    enrolled = torch.cat([known[1::3], known[2::3]])
    judge = IdentityOracle(lambda x: embed(x.flip(1)), enrolled, who[::3].repeat(2), name="another")
    calls = _once(monkeypatch, decoder.DecoderTrained, RuntimeError(), call=0)
    subject = replace(other, oracle=judge)
    audit(tmp_path, attacks=["blackbox-decoder"], resume=True, subject=subject, steps=3)
    assert len(calls) == 1


@pytest.mark.parametrize(("threat", "explained"), [("BlackBox", True), ("Informed", False)])
def test_only_attacks_of_the_worst_case_explain_what_releases_tell(threat, explained):
    """An informed attack gates nothing, so that it can't stand for the test of dependence."""
    row = Score("toy", "some", threat, "identification", 0.9, 0.8, 1.0, 40, "share", "up")
    audit = SimpleNamespace(scores=[row], subject=toy_subject(**FEW))
    assert Audit._explained(audit, SimpleNamespace(label="toy")) == explained


def test_undefended_features_are_never_written(tmp_path):
    subject = toy_subject(**FEW)
    audit(tmp_path, "gaussian:sigma=0.5", subject=subject, steps=3)
    from safetensors.torch import load_file

    features = subject.query(subject.faces.images)
    stages = list((tmp_path / "run" / "stages").glob("*.safetensors"))
    assert len(stages) == 6  # two attacks on two defences; one release and its queries
    for path in stages:
        for tensor in load_file(path).values():
            assert tensor.shape != features.shape or not torch.allclose(tensor, features, atol=1e-3)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("cuda"), MemoryError()])
def test_running_out_of_memory_is_a_run_error(tmp_path, monkeypatch, error):
    _once(monkeypatch, decoder.DecoderTrained, error, call=1)
    with pytest.raises(RunError, match="ran out of memory") as caught:
        audit(tmp_path)
    assert caught.value.exit_code == 4
