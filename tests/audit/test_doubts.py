from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from audit.toy_subject import Broken, Constant, Pooling, toy_plan, toy_subject
from leakaudit.audit.doubts import CleanChecks, raised, relative_change
from leakaudit.core.types import Convergence, Doubt, Score
from leakaudit.models.faces import Faces

FINE = CleanChecks(gradient_ok=True, features_vary=True, twins=0)
BLACK, WHITE = "blackbox-decoder", "whitebox-latent"


def rate(attack, value, reach=0.05, *, defence="none"):
    return Score(
        defence, attack, "t", "identification", value, value - reach, value + reach, 40, "share",
        "up",
    )  # fmt: skip


GOOD = (
    rate("original", 0.98),
    rate("control-prior", 0.02),
    rate("control-mean", 0.03),
    rate(BLACK, 0.95),
    rate(WHITE, 0.9),
    rate("worst", 0.97),
)


def effort(attack=BLACK, *, defence="none", converged=True, change=0.01, note=None):
    return Convergence(defence, attack, 10, 30, 0.1, change, converged, 1.0, (), note)


DONE = (effort(), effort(WHITE))


def subject_of(*, faces=40, people=40, gallery=100, prior=True, doubts=()):
    who = torch.arange(faces) % people
    return SimpleNamespace(
        faces=Faces(torch.zeros(faces, 3, 4, 4), who, tuple(map(str, range(people)))),
        oracle=SimpleNamespace(gallery_size=gallery),
        prior=object() if prior else None,
        doubts=doubts,
    )


@pytest.fixture
def doubted(tmp_path):
    """The doubts by name that an audit without any becomes when some of it is changed."""

    def of(*, scores=GOOD, efforts=DONE, checks=FINE, plan=(), **subject):
        made = toy_plan(tmp_path, *plan) if isinstance(plan, tuple) else plan
        found = raised(subject_of(**subject), made, tuple(scores), tuple(efforts), checks)
        return {doubt.id: doubt for doubt in found}

    return of


def changed(*new):
    attacks = {score.attack for score in new}
    return (*(score for score in GOOD if score.attack not in attacks), *new)


def test_a_good_audit_has_no_doubt(doubted):
    assert doubted() == {}


def test_attacks_no_better_than_a_control_have_no_power(doubted):
    found = doubted(scores=changed(rate("worst", 0.12), rate("control-mean", 0.1)))
    assert found["no-power"].severity == "serious"
    assert found["no-power"].bears_on("crafter", "chosen")
    assert "no-power" not in doubted(scores=changed(rate("worst", 0.3), rate("control-mean", 0.1)))


def test_power_is_judged_on_undefended_features_only(doubted):
    weak = (rate("worst", 0.01, defence="gaussian"), rate("control-mean", 0.5, defence="gaussian"))
    assert "no-power" not in doubted(scores=(*GOOD, *weak))


@pytest.mark.parametrize(("value", "severity"), [(0.95, None), (0.85, "note"), (0.7, "serious")])
def test_an_oracle_that_misses_originals_is_weak(doubted, value, severity):
    found = doubted(scores=changed(rate("original", value))).get("weak-oracle")
    assert (None if found is None else found.severity) == severity


@pytest.mark.parametrize(
    ("faces", "people", "few"), [(30, 30, False), (29, 29, True), (40, 5, False), (40, 4, True)]
)
def test_few_images_or_people_decide_nothing(doubted, faces, people, few):
    found = doubted(faces=faces, people=people)
    assert ("too-few" in found) == few
    if few:
        assert found["too-few"].severity == "serious"


def test_a_constant_feature_is_doubted(doubted):
    found = doubted(checks=replace(FINE, features_vary=False))
    assert found["constant-feature"].severity == "serious"


def test_a_missing_gradient_bears_on_white_box_rows_only(doubted):
    doubt = doubted(checks=replace(FINE, gradient_ok=False))["zero-gradient"]
    assert doubt.severity == "serious"
    assert doubt.bears_on("none", WHITE)
    assert not doubt.bears_on("none", BLACK)


def test_an_attacked_picture_among_the_public_ones_is_doubted(doubted):
    assert "3 attacked pictures" in doubted(checks=replace(FINE, twins=3))["overlap"].why


def test_an_attack_that_still_improves_bears_on_its_row_and_the_worst_cases(doubted):
    late = effort(WHITE, converged=False, change=0.2)
    doubt = doubted(efforts=(effort(), late))["not-converged"]
    assert doubt.severity == "serious"
    assert "+20.0%" in doubt.why
    assert all(doubt.bears_on("none", a) for a in (WHITE, "worst", "worst-static", "chosen"))
    assert not doubt.bears_on("none", BLACK)
    assert not doubt.bears_on("gaussian", "worst")


def test_a_defence_that_still_moves_is_a_note_on_all_its_rows(doubted):
    late = effort("(defence)", defence="crafter", converged=False)
    found = doubted(efforts=(late,))
    assert found["defence-not-converged"].severity == "note"
    assert found["defence-not-converged"].bears_on("crafter", BLACK)
    assert "not-converged" not in found


def test_static_attacks_alone_leave_a_defences_worst_case_open(doubted):
    doubt = doubted(plan=("gaussian",))["static-only"]
    assert doubt.severity == "serious"
    assert doubt.bears_on("gaussian", "worst")
    assert not doubt.bears_on("gaussian", "worst-static")
    assert not doubt.bears_on("none", "worst")


def test_an_adaptive_attack_settles_that_doubt(doubted, tmp_path):
    plan = toy_plan(tmp_path, "gaussian")
    adaptive = SimpleNamespace(name="adaptive", holds=SimpleNamespace(adaptive=True))
    assert "static-only" not in doubted(plan=replace(plan, attacks=(*plan.attacks, adaptive)))


def test_a_white_box_far_below_the_black_box_is_noted(doubted):
    found = doubted(scores=changed(rate(WHITE, 0.7)))["white-box-weak"]
    assert found.severity == "note"
    assert "white-box-weak" not in doubted(scores=changed(rate(WHITE, 0.85)))


def test_a_small_gallery_has_a_high_floor(doubted):
    assert doubted(gallery=39)["high-floor"].severity == "note"
    assert "high-floor" not in doubted(gallery=40)


@pytest.mark.parametrize(("residual", "rough"), [(0.71, True), (0.69, False)])
def test_a_rough_hypergradient_is_noted(doubted, residual, rough):
    note = f"emd 0.3, hypergradient_residual {residual:.3g}, stationarity 0.1"
    found = doubted(efforts=(effort("(defence)", defence="crafter", note=note),))
    assert ("rough-hypergradient" in found) == rough


def test_an_audit_without_a_white_box_says_so(doubted, tmp_path):
    assert doubted(prior=False)["no-white-box"].severity == "note"
    assert "no-white-box" in doubted(plan=toy_plan(tmp_path, attacks=[BLACK]))


def test_a_subjects_own_doubts_are_those_of_the_run(doubted):
    own = Doubt("few-public", "note", "fewer than 500", "Only 12.", "Give more.")
    assert doubted(doubts=(own,))["few-public"] == own


def test_serious_doubts_come_first(doubted):
    severities = [d.severity for d in doubted(gallery=2, faces=4, people=2).values()]
    assert severities == ["serious", "note"]


class _Detached(Pooling):
    def forward(self, x):
        return super().forward(x).detach()


class _Quiet(nn.Module):
    def forward(self, x):
        return (0 * x).sqrt() + x


@pytest.mark.parametrize(
    ("encoder", "gradient", "vary"),
    [
        (Pooling(), True, True),
        (Constant(), False, False),
        (_Detached(), False, True),
        (_Quiet(), False, True),
        (Broken(), False, False),
    ],
)
def test_clean_checks_see_gradients_and_variance(encoder, gradient, vary):
    checks = CleanChecks.of(toy_subject(encoder, attacked=4))
    assert (checks.gradient_ok, checks.features_vary, checks.twins) == (gradient, vary, 0)


def test_clean_checks_count_twins():
    subject = toy_subject(attacked=4)
    public = torch.cat([subject.public, subject.faces.images[1:3]])
    assert CleanChecks.of(replace(subject, public=public)).twins == 2


def test_clean_checks_leave_the_pictures_as_they_were():
    subject = toy_subject(attacked=4)
    before = subject.public.clone()
    CleanChecks.of(subject)
    assert torch.equal(subject.public, before)
    assert not subject.public.requires_grad


@pytest.mark.parametrize(
    ("curve", "change"),
    [((1.0, 0.5), None), ((4.0, 2.0, 1.0), 0.75), ((9.0, 1.0, 1.0, 2.0), -1.0), ((0.0,) * 3, 0.0)],
)
def test_the_relative_change_is_that_of_the_last_two_steps(curve, change):
    assert relative_change(curve) == change
