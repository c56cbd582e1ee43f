from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from audit.toy_subject import Broken, Constant, Pooling, toy_plan, toy_subject
from leakaudit.attacks.base import Queries
from leakaudit.audit.doubts import CleanChecks, Facts, raised, relative_change
from leakaudit.core.threats import AdaptiveBlackBox, AdaptiveWhiteBox
from leakaudit.core.types import Convergence, Doubt, Score
from leakaudit.models.faces import Faces

FINE = CleanChecks(gradient_ok=True, features_vary=True, twins=0)
BLACK, WHITE, STUDIED = "blackbox-decoder", "whitebox-latent", "adaptive-decoder"
GENERATOR, AVERAGING = "adaptive-generator", "adaptive-averaging"
THREATS = {
    BLACK: "BlackBox",
    "blackbox-ridge": "BlackBox",
    "linkage": "BlackBox",
    WHITE: "WhiteBox",
    "whitebox-pixel": "WhiteBox",
    STUDIED: "AdaptiveBlackBox",
    AVERAGING: "AdaptiveBlackBox",
    "adaptive-linkage": "AdaptiveBlackBox",
    GENERATOR: "AdaptiveWhiteBox",
    "linkage-classifier": "Informed",
}


def rate(attack, value, reach=0.05, *, defence="none", floor=None):
    """A row of 40 faces, of which the first ones are named."""
    hits = tuple(float(k < round(40 * value)) for k in range(40))
    return Score(
        defence, attack, THREATS.get(attack, attack), "identification", value, value - reach,
        value + reach, 40, "share", "up", floor=floor, per_face=hits,
    )  # fmt: skip


def studied(name=STUDIED, *, pictures=64, looks=1, holds=AdaptiveBlackBox):
    """An adaptive attack as a plan knows it."""
    return SimpleNamespace(
        name=name, holds=holds, looks=lambda: looks, queries_ahead=lambda: Queries(pictures, looks)
    )


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
_FACTS = ("random", "moved", "dependence", "reached")


def subject_of(*, faces=40, people=40, gallery=100, public=200, prior=True, doubts=(), labels=None):
    """``labels`` maps attributes to how many of the faces, the first ones, have them."""
    who = torch.arange(faces) % people
    had = {} if labels is None else labels
    columns = [(torch.arange(faces) < count).float() for count in had.values()]
    return SimpleNamespace(
        faces=Faces(
            torch.zeros(faces, 3, 4, 4),
            who,
            tuple(map(str, range(people))),
            torch.stack(columns, 1) if columns else None,
            tuple(had),
        ),
        head=nn.Identity() if columns else None,
        oracle=SimpleNamespace(gallery_size=gallery),
        judges=(),
        public=torch.zeros(public, 1),
        prior=object() if prior else None,
        doubts=doubts,
    )


@pytest.fixture
def doubted(tmp_path):
    """The doubts by name that an audit without any becomes when some of it is changed."""

    def of(*, scores=GOOD, efforts=DONE, plan=(), more=(), **rest):
        about = {key: rest.pop(key) for key in _FACTS if key in rest}
        made = toy_plan(tmp_path, *plan) if isinstance(plan, tuple) else plan
        made = replace(made, attacks=(*made.attacks, *more))
        known = Facts(rest.pop("checks", FINE), **about)
        found = raised(subject_of(**rest), made, tuple(scores), tuple(efforts), known)
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


def test_attacks_that_never_met_undefended_features_have_no_power(doubted):
    """Adaptive attacks alone: a weak one would name nobody, and pass for a good defence."""
    rows = [rate(name, 0.0, defence="gaussian") for name in (STUDIED, "worst")]
    only = tuple(score for score in GOOD if score.attack not in (BLACK, WHITE, "worst"))
    found = doubted(scores=(*only, *rows), plan=("gaussian",), more=(studied(),))
    assert found["no-power"].severity == "serious"
    assert found["no-power"].bears_on("gaussian", "worst")
    assert "no-power" not in doubted(scores=only)  # nothing was attacked at all: gates say so


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


def test_a_missing_gradient_bears_on_every_white_box_there_is(doubted):
    blind = replace(FINE, gradient_ok=False)
    doubt = doubted(checks=blind, more=(studied(GENERATOR, holds=AdaptiveWhiteBox), studied()))
    rows = {attack for _, attack in doubt["zero-gradient"].rows}
    assert rows == {WHITE, GENERATOR}
    assert not doubt["zero-gradient"].bears_on("gaussian", "worst")


def test_a_missing_gradient_bears_on_all_where_nothing_else_attacks(doubted, tmp_path):
    plan = toy_plan(tmp_path, attacks=[WHITE])
    doubt = doubted(plan=plan, checks=replace(FINE, gradient_ok=False))["zero-gradient"]
    assert doubt.bears_on("none", "worst")


def test_an_attacked_picture_among_the_public_ones_is_doubted(doubted):
    assert "3 attacked pictures" in doubted(checks=replace(FINE, twins=3))["overlap"].why


def test_an_attack_that_still_improves_bears_on_its_row_and_the_worst_cases(doubted):
    late = effort(WHITE, converged=False, change=0.2)
    doubt = doubted(efforts=(effort(), late))["not-converged"]
    assert doubt.severity == "serious"
    assert "+20.0%" in doubt.why
    assert all(doubt.bears_on("none", a) for a in (WHITE, "worst", "worst-static", "chosen"))
    assert not doubt.bears_on("none", BLACK)
    assert not doubt.bears_on("none", "worst-adaptive")
    assert not doubt.bears_on("gaussian", "worst")


def test_an_adaptive_attack_that_still_improves_bears_on_no_static_row(doubted):
    late = effort(STUDIED, defence="gaussian", converged=False)
    rows = (*GOOD, rate(STUDIED, 0.1, defence="gaussian"))
    doubt = doubted(scores=rows, efforts=(late,), plan=("gaussian",))["not-converged"]
    assert all(doubt.bears_on("gaussian", a) for a in (STUDIED, "worst", "worst-adaptive"))
    assert not doubt.bears_on("gaussian", "worst-static")


def test_an_informed_attack_that_still_improves_bears_on_its_own_row_only(doubted):
    late = effort("linkage-classifier", converged=False)
    rows = (*GOOD, rate("linkage-classifier", 0.1))
    doubt = doubted(scores=rows, efforts=(late,))["not-converged"]
    assert doubt.rows == (("none", "linkage-classifier"),)


def test_an_attack_that_improves_everywhere_is_one_doubt(doubted):
    late = [effort(WHITE, defence=d, converged=False) for d in ("none", "gaussian")]
    rows = (*GOOD, rate(WHITE, 0.1, defence="gaussian"))
    doubt = doubted(scores=rows, efforts=late, plan=("gaussian",))["not-converged"]
    assert all(doubt.bears_on(d, "worst") for d in ("none", "gaussian"))
    assert "none (+1.0% in the last half), gaussian (+1.0%" in doubt.why


def test_a_defence_that_still_moves_is_a_note_on_all_its_rows(doubted):
    late = effort("(defence)", defence="crafter", converged=False)
    found = doubted(efforts=(late,))
    assert found["defence-not-converged"].severity == "note"
    assert found["defence-not-converged"].bears_on("crafter", BLACK)
    assert "not-converged" not in found


def test_static_attacks_alone_leave_a_defences_worst_case_open(doubted):
    rows = (*GOOD, rate(BLACK, 0.1, defence="gaussian"), rate(WHITE, 0.1, defence="gaussian"))
    doubt = doubted(scores=rows, plan=("gaussian",))["static-only"]
    assert doubt.severity == "serious"
    assert doubt.bears_on("gaussian", "worst")
    assert not doubt.bears_on("gaussian", "worst-static")
    assert not doubt.bears_on("none", "worst")


def test_an_adaptive_attack_settles_that_doubt_where_it_was_run(doubted):
    rows = (*GOOD, rate(STUDIED, 0.5, defence="gaussian"))
    found = doubted(scores=rows, plan=("gaussian", "crafter"), more=(studied(),))
    assert not found["static-only"].bears_on("gaussian", "worst")
    assert found["static-only"].bears_on("crafter", "worst")
    assert "static-only" not in doubted(scores=rows, plan=("gaussian",), more=(studied(),))


def test_somebody_elses_adaptive_attack_settles_it_where_it_names_anybody(doubted):
    """Of one that names nobody nothing is known: it may be broken."""

    theirs = studied("theirs")
    adapts = {"threat": "AdaptiveBlackBox"}
    dumb = (*GOOD, replace(rate("theirs", 0.0, defence="gaussian"), **adapts))
    doubt = doubted(scores=dumb, plan=("gaussian",), more=(theirs,))["static-only"]
    assert "theirs, which named nobody" in doubt.why
    good = (*GOOD, replace(rate("theirs", 0.5, defence="gaussian"), **adapts))
    assert "static-only" not in doubted(scores=good, plan=("gaussian",), more=(theirs,))
    both = (*dumb, rate(STUDIED, 0.0, defence="gaussian"))
    assert "static-only" not in doubted(scores=both, plan=("gaussian",), more=(theirs, studied()))


def test_an_informed_attack_does_not_settle_it(doubted):
    rows = (*GOOD, rate("linkage-classifier", 0.5, defence="gaussian"))
    assert "static-only" in doubted(scores=rows, plan=("gaussian",))


def behind(static, adaptive, *, floors=(None, None), names=(BLACK, STUDIED)):
    """Rows of a defence whose static and adaptive attacks name these shares."""
    one, two = names
    return (
        *GOOD,
        rate(one, static, defence="gaussian"),
        rate(two, adaptive, defence="gaussian"),
        rate("worst-static", static, defence="gaussian", floor=floors[0]),
        rate("worst-adaptive", adaptive, defence="gaussian", floor=floors[1]),
    )


def test_adaptive_attacks_below_static_ones_beyond_the_interval_are_doubted(doubted):
    found = doubted(scores=behind(0.6, 0.3), plan=("gaussian",))
    doubt = found["adaptive-weaker"]
    assert doubt.severity == "serious"
    assert "-30%" in doubt.why
    assert doubt.bears_on("gaussian", "worst-adaptive")
    assert not doubt.bears_on("gaussian", "worst"), "the worst case holds the static ones too"
    assert not doubt.bears_on("none", "worst-adaptive")


@pytest.mark.parametrize(("static", "adaptive"), [(0.6, 0.575), (0.3, 0.3), (0.3, 0.6), (0, 0)])
def test_adaptive_attacks_within_the_interval_or_above_are_not(doubted, static, adaptive):
    found = doubted(scores=behind(static, adaptive), plan=("gaussian",))
    assert not {"adaptive-weaker", "adaptive-broken"} & found.keys()


def test_fewer_guesses_are_allowed_for_before_the_adaptive_ones_are_called_weaker(doubted):
    fair = doubted(scores=behind(0.6, 0.4, floors=(0.45, 0.05)), plan=("gaussian",))
    assert "adaptive-weaker" not in fair
    assert "adaptive-weaker" in doubted(
        scores=behind(0.6, 0.4, floors=(0.05, 0.05)), plan=("gaussian",)
    )


def test_an_adaptive_attack_below_its_own_start_is_broken(doubted):
    found = doubted(scores=behind(0.6, 0.3), plan=("gaussian",))["adaptive-broken"]
    assert found.severity == "serious"
    rows = ("worst", "worst-adaptive", "chosen", STUDIED)
    assert all(found.bears_on("gaussian", row) for row in rows)
    assert not found.bears_on("gaussian", "worst-static")
    other = behind(0.6, 0.3, names=("linkage", STUDIED))
    assert "adaptive-broken" not in doubted(scores=other, plan=("gaussian",))


def test_a_random_defence_that_nobody_averaged_is_noted(doubted):
    rows = (*GOOD, rate(STUDIED, 0.3, defence="gaussian"))
    more = (studied(), studied(AVERAGING, looks=5))
    doubt = doubted(scores=rows, plan=("gaussian",), more=more, random=frozenset({"gaussian"}))
    assert doubt["averaging-not-run"].severity == "note"
    assert doubt["averaging-not-run"].bears_on("gaussian", "worst")
    assert "averaging-not-run" not in doubted(scores=rows, plan=("gaussian",), more=more)
    averaged = (*rows, rate(AVERAGING, 0.3, defence="gaussian"))
    assert "averaging-not-run" not in doubted(
        scores=averaged, plan=("gaussian",), more=more, random=frozenset({"gaussian"})
    )


def test_a_prior_that_attack_and_defence_share_is_noted_unless_another_was_tried(doubted):
    rows = (*GOOD, rate(WHITE, 0.1, defence="crafter"), rate(WHITE, 0.1, defence="gaussian"))
    doubt = doubted(scores=rows, plan=("crafter", "gaussian"))["prior-shared"]
    assert doubt.severity == "note"
    assert doubt.bears_on("crafter", "worst")
    assert not doubt.bears_on("gaussian", "worst"), "it was made without a prior"
    other = (*rows, rate(GENERATOR, 0.1, defence="crafter"))
    assert "prior-shared" not in doubted(scores=other, plan=("crafter",))
    black = (*GOOD, rate(BLACK, 0.1, defence="crafter"))
    assert "prior-shared" not in doubted(scores=black, plan=("crafter",)), "nobody searched it"


@pytest.mark.parametrize(
    ("reached", "weak"), [(0.5, True), (0.59, True), (0.6, False), (None, False)]
)
def test_a_head_that_guesses_loses_nothing(doubted, tmp_path, reached, weak):
    """A drop of 0 from chance would pass every gate on utility."""
    found = doubted(reached=reached)
    assert ("weak-head" in found) == weak
    if weak:
        assert found["weak-head"].severity == "serious"
        assert found["weak-head"].bears_on("crafter", "utility")
        assert not found["weak-head"].bears_on("crafter", "worst")
        given = subject_of(doubts=(Doubt("weak-head", "serious", "", "on more faces", ""),))
        plan = toy_plan(tmp_path)
        told = raised(given, plan, GOOD, DONE, Facts(FINE, reached=reached))
        assert [d.why for d in told if d.id == "weak-head"] == ["on more faces"]


@pytest.mark.parametrize(
    ("labels", "people", "few", "mean"),
    [
        ({"a": 4, "b": 30}, 40, (), False),
        ({"a": 3, "b": 20}, 40, ("a",), False),
        ({"a": 3, "b": 20, "c": 37}, 40, ("a", "c"), True),
        ({"a": 20, "b": 20}, 3, ("a", "b"), True),  # of three people, many pictures of each
        ({"a": 0, "b": 20}, 40, (), False),  # nobody has it: it has no row
        (None, 40, (), False),
    ],
)
def test_attributes_that_few_have_or_lack_decide_nothing(doubted, labels, people, few, mean):
    found = doubted(labels=labels, people=people)
    if not few:
        assert "few-labels" not in found
        return
    doubt = found["few-labels"]
    assert doubt.severity == "serious"
    assert doubt.bears_on("none", "utility") and not doubt.bears_on("none", "worst")
    metrics = {f"auc:{name}{end}" for name in few for end in ("", "_drop")}
    assert set(doubt.metrics) == metrics | ({"auc", "auc_drop"} if mean else set())


def test_dependence_that_no_attack_explains_is_serious(doubted):
    rows = (*GOOD, rate(BLACK, 0.0, defence="gaussian"), rate(STUDIED, 0.025, defence="gaussian"))
    doubt = doubted(scores=rows, plan=("gaussian",), dependence={"gaussian": 5e-4})
    assert doubt["dependence-unexplained"].severity == "serious"
    for attack in (BLACK, STUDIED, "worst", "worst-static", "chosen"):
        assert doubt["dependence-unexplained"].bears_on("gaussian", attack)
    assert not doubt["dependence-unexplained"].bears_on("gaussian", "utility")


@pytest.mark.parametrize("p", [0.02, 1.0, float("nan")])
def test_without_dependence_there_is_nothing_to_explain(doubted, p):
    rows = (*GOOD, rate(BLACK, 0.0, defence="gaussian"))
    found = doubted(scores=rows, plan=("gaussian",), dependence={"gaussian": p})
    assert "dependence-unexplained" not in found


@pytest.mark.parametrize(("floor", "explained"), [(None, True), (0.02, True), (0.2, False)])
def test_an_attack_clearly_above_its_floor_explains_dependence(doubted, floor, explained):
    rows = (*GOOD, rate(STUDIED, 0.25, defence="gaussian", floor=floor))
    found = doubted(scores=rows, plan=("gaussian",), dependence={"gaussian": 5e-4})
    assert ("dependence-unexplained" in found) != explained


@pytest.mark.parametrize(
    ("pictures", "public", "few"), [(100, 200, False), (99, 200, True), (100, 20, True)]
)
def test_adaptive_attacks_that_asked_little_are_noted(doubted, pictures, public, few):
    rows = (*GOOD, rate(STUDIED, 0.3, defence="gaussian"))
    more = (studied(pictures=pictures),)
    asked = replace(effort(STUDIED, defence="gaussian"), queries=min(pictures, public))
    found = doubted(scores=rows, plan=("gaussian",), more=more, public=public, efforts=(asked,))
    assert ("few-queries" in found) == few
    if few:
        assert found["few-queries"].severity == "note"
        assert found["few-queries"].bears_on("gaussian", "worst-adaptive")
        assert str(min(pictures, public)) in found["few-queries"].why


def test_moved_rows_are_noted_on_their_defence(doubted):
    doubt = doubted(plan=("gaussian", "crafter"), moved=frozenset({"gaussian"}))["rows-moved"]
    assert doubt.severity == "note"
    assert doubt.bears_on("gaussian", BLACK)
    assert not doubt.bears_on("crafter", BLACK)


def test_a_white_box_far_below_the_black_box_is_noted(doubted):
    found = doubted(scores=changed(rate(WHITE, 0.7)))["white-box-weak"]
    assert found.severity == "note"
    assert found.bears_on("none", WHITE)
    assert "white-box-weak" not in doubted(scores=changed(rate(WHITE, 0.85)))
    better = (*changed(rate(WHITE, 0.7)), rate("whitebox-pixel", 0.9))
    assert "white-box-weak" not in doubted(scores=better), "the best white box counts"
    by_name = changed(rate(WHITE, 0.7), rate(BLACK, 0.75), rate("linkage", 0.95))
    assert "white-box-weak" not in doubted(scores=by_name), "linkage makes no picture"


def test_a_small_gallery_has_a_high_floor(doubted):
    assert doubted(gallery=39)["high-floor"].severity == "note"
    assert "high-floor" not in doubted(gallery=40)
    more = (*GOOD, rate(BLACK, 0.1, defence="d"), rate(WHITE, 0.1, defence="d"),
            rate(STUDIED, 0.1, defence="gaussian"))  # fmt: skip
    three = tuple(replace(s, defence="gaussian") if s.defence == "d" else s for s in more)
    assert "high-floor" in doubted(scores=three, plan=("gaussian",), gallery=59)


@pytest.mark.parametrize(("residual", "rough"), [(0.71, True), (0.69, False)])
def test_a_rough_hypergradient_is_noted(doubted, residual, rough):
    note = f"emd 0.3, hypergradient_residual {residual:.3g}, stationarity 0.1"
    found = doubted(efforts=(effort("(defence)", defence="crafter", note=note),))
    assert ("rough-hypergradient" in found) == rough


@pytest.mark.parametrize(
    ("label", "missed", "raised"),
    [
        ("crafter", 0.31, True),
        ("crafter", 0.29, False),
        ("crafter-residual:keep=0.5", 0.31, True),
        ("crafter-residual:keep=0", 0.9, False),
        ("crafter-z", 0.9, False),
    ],
)
def test_a_prior_that_misses_much_is_told_where_that_is_kept(doubted, label, missed, raised):
    note = f"step_residual 0.3, unexpressed {missed:.3g}, worth 1.2"
    found = doubted(plan=(label,), efforts=(effort("(defence)", defence=label, note=note),))
    assert ("prior-misses" in found) == raised
    if raised:
        assert found["prior-misses"].severity == "note"
        assert (
            "31%" in found["prior-misses"].why and "crafter-z" in found["prior-misses"].what_to_do
        )


@pytest.mark.parametrize(
    ("left", "moved", "raised"),
    [
        (0.36, 0.0, False),
        (0.64, 0.24, False),
        (0.66, 0.0, True),
        (0.34, 0.0, True),
        (0.5, 0.26, True),
    ],
)
def test_a_beta_whose_unit_was_not_found_is_told(doubted, left, moved, raised):
    note = f"unexpressed 0.1, worth 64, likeness_left {left:.3g}, worth_moved {moved:.3g}"
    found = doubted(plan=("crafter",), efforts=(effort("(defence)", defence="crafter", note=note),))
    assert ("beta-off-its-unit" in found) == raised


def test_an_audit_without_a_white_box_says_so(doubted):
    blind = tuple(score for score in GOOD if score.attack != WHITE)
    assert doubted(scores=blind)["no-white-box"].severity == "note"
    pixel = (*blind, rate("whitebox-pixel", 0.9))
    assert "no-white-box" not in doubted(scores=pixel), "it needs no prior"


def test_a_subjects_own_doubts_are_those_of_the_run(doubted):
    own = Doubt("few-public", "note", "fewer than 500", "Only 12.", "Give more.")
    assert doubted(doubts=(own,))["few-public"] == own


def test_serious_doubts_come_first(doubted):
    severities = [d.severity for d in doubted(gallery=2, faces=4, people=2).values()]
    assert severities == ["serious", "note"]


class _Detached(Pooling):
    def forward(self, x):
        return super().forward(x).detach()


class _Backwards(Pooling):
    """Gradients that point away from where the feature grows."""

    def forward(self, x):
        return 2 * super().forward(x).detach() - super().forward(x)


class _Straight(Pooling):
    """Rounded to 20 levels, its gradient taken as if it weren't: right over longer steps."""

    def forward(self, x):
        y = super().forward(x)
        return y + ((20 * y).round() / 20 - y).detach()


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
        (_Backwards(), False, True),
        (_Straight(), True, True),
        (Broken(), False, False),
    ],
)
def test_clean_checks_see_gradients_and_variance(encoder, gradient, vary):
    checks = CleanChecks.of(toy_subject(encoder, attacked=4))
    assert (checks.gradient_ok, checks.features_vary, checks.twins) == (gradient, vary, 0)


def test_gradients_of_a_network_with_kinks_are_found_right():
    kinks = nn.Sequential(Pooling(), nn.ReLU(), nn.MaxPool2d(2))
    assert CleanChecks.of(toy_subject(kinks, attacked=4, prior=False, head=False)).gradient_ok


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
