"""The estimate before a scan: what is learnt once counts once, and what won't run doesn't count."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from leakaudit.audit.estimate import METRICS, Speed, estimate
from leakaudit.audit.plan import make_plan

STILL = {"encode": 0.0, "generate": 0.0, "decoder_step": 0.0, "solve": 0.0, "measure": 0.0}
SUBJECT = SimpleNamespace(faces=range(50), public=range(400))


def seconds(tmp_path, text, defences, **speed):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    plan = make_plan(
        preset=str(path), defences=defences, attacks=None, seed=0, has_prior=True, has_head=True
    )
    return estimate(SUBJECT, plan, Speed(**{**STILL, **speed})), plan


def rows(plan, defence):
    attacks = plan.attacks_on(plan.defences[defence])
    return METRICS * len(SUBJECT.faces) * (len(attacks) + len(plan.controls) + 2)


def test_what_attacks_learn_of_undefended_features_counts_once(tmp_path):
    text = "[attacks.blackbox-decoder]\ntraining.steps = 70\n"
    alone, _ = seconds(tmp_path, text, [], decoder_step=1.0)
    both, plan = seconds(tmp_path, text, ["gaussian"], decoder_step=1.0)
    assert alone > 70
    assert both - alone == pytest.approx(rows(plan, 1))


def test_what_attacks_learn_of_a_defence_counts_for_each(tmp_path):
    text = "[attacks.blackbox-decoder]\ntraining.steps = 70\n[attacks.adaptive-decoder]\n"
    one, plan = seconds(tmp_path, text, ["gaussian"], decoder_step=1.0)
    two, _ = seconds(tmp_path, text, ["gaussian", "gaussian:sigma=3"], decoder_step=1.0)
    assert two - one > rows(plan, 1) + 1


@pytest.mark.parametrize("spec", ["crafter", "crafter-z", "crafter-residual"])
def test_releases_to_average_count_only_where_they_differ(tmp_path, spec):
    text = "[attacks.adaptive-averaging]\nqueries = 32\nreleases = 8\n"
    few, plan = seconds(tmp_path, text, [spec], encode=1.0)
    many, _ = seconds(tmp_path, text, [f"{spec}:replay=false"], encode=1.0)
    defence = plan.defences[1].defence
    apart = defence.passes_ahead(50 + 2 + 32 * 8) - defence.passes_ahead(50 + 2)
    assert many - few == pytest.approx(apart)


def test_a_crafter_that_couples_a_batch_is_released_anew(tmp_path):
    text = "[attacks.adaptive-averaging]\n"
    spec = "crafter:coupling=batch,outer_steps=2"
    assert not seconds(tmp_path, text, [spec])[1].defences[1].defence.will_replay
