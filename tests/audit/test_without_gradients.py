"""An encoder without gradients: what follows them is left out and said, the rest is run."""

import pytest

from audit.toy_subject import toy_preset
from leakaudit.attacks import ATTACKS
from leakaudit.audit.plan import make_plan
from leakaudit.core.errors import UsageError
from leakaudit.core.threats import WhiteBox


def plan(folder, **options):
    settings = {"defences": [], "attacks": None, "has_gradients": False, **options}
    return make_plan(
        preset=toy_preset(folder), seed=0, has_prior=True, has_head=True, **settings
    )  # fmt: skip


def test_white_box_attacks_are_left_out_with_the_reason(tmp_path):
    found = plan(tmp_path)
    assert [attack.name for attack in found.attacks] == ["blackbox-decoder"]
    assert "no gradient of the encoder" in dict(found.left_out)["whitebox-latent"]
    assert found.to_json()["left_out"].keys() >= {"whitebox-latent"}
    with_them = plan(tmp_path, has_gradients=True)
    assert "whitebox-latent" in [attack.name for attack in with_them.attacks]


def test_adaptive_white_box_attacks_are_left_out_too(tmp_path):
    white = [n for n in ATTACKS.names() if issubclass(ATTACKS.make(n, {}).holds, WhiteBox)]
    assert len(white) > 1
    found = plan(tmp_path, attacks=["blackbox-decoder", *white])
    assert [attack.name for attack in found.attacks] == ["blackbox-decoder"]
    assert dict(found.left_out).keys() >= set(white)


def test_where_nothing_else_was_asked_for_it_is_an_error_with_the_reason(tmp_path):
    with pytest.raises(UsageError, match=r"No attack is left.*no gradient of the encoder"):
        plan(tmp_path, attacks=["whitebox-latent"])


def test_a_defence_that_follows_gradients_is_refused_and_not_dropped(tmp_path):
    with pytest.raises(UsageError, match=r"follows the encoder's gradients.*crafter"):
        plan(tmp_path, defences=["crafter"])
    assert len(plan(tmp_path, defences=["gaussian"]).defences) == 2
