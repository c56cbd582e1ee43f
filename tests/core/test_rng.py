import torch
from hypothesis import given
from hypothesis import strategies as st

from leakaudit.core.rng import Rng

NAMES = st.lists(st.text(st.characters(codec="ascii", min_codepoint=32), max_size=8), max_size=3)


def test_the_numbers_of_a_stream_never_change():
    assert Rng(0).state == 3456079177858693020  # sha256 of "0"
    assert Rng(7).derive("attack", 3).state == Rng(7, ("attack", "3")).state


def _known(rng: Rng) -> int:
    import hashlib

    text = "\x1f".join((str(rng.seed), *rng.path))
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) // 2


@given(st.integers(-(2**70), 2**70), NAMES)
def test_a_state_is_a_hash_of_seed_and_path_that_a_generator_can_take(seed, names):
    rng = Rng(seed).derive(*names)
    assert rng.state == _known(rng)
    assert 0 <= rng.state < 2**63
    rng.torch()


@given(NAMES, NAMES)
def test_two_streams_are_the_same_only_if_their_names_are(a, b):
    assert (Rng(1).derive(*a).state == Rng(1).derive(*b).state) == (a == b)


def test_deriving_step_by_step_is_deriving_at_once():
    assert Rng(1).derive("a").derive("b") == Rng(1).derive("a", "b")


def test_names_are_not_run_together():
    states = {Rng(1).derive(*path).state for path in (("ab",), ("a", "b"), ("a", "", "b"), ("b",))}
    assert len(states) == 4
    assert Rng(1).derive("1").state != Rng(11).state


def test_what_was_drawn_before_doesnt_matter():
    rng = Rng(3)
    first = torch.randn(4, generator=rng.derive("a").torch())
    torch.randn(100, generator=rng.torch())
    rng.derive("b").numpy().normal(size=9)
    torch.manual_seed(12)
    assert torch.equal(torch.randn(4, generator=rng.derive("a").torch()), first)


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    torch.randn(4, generator=Rng(3).torch())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_children_are_not_correlated():
    draws = torch.stack(
        [torch.randn(2000, generator=Rng(0).derive("face", k).torch()) for k in range(12)]
    )
    correlation = torch.corrcoef(draws) - torch.eye(12)
    assert float(correlation.abs().max()) < 0.1


def test_numpy_and_torch_start_afresh_each_time():
    rng = Rng(5, ("x",))
    assert rng.numpy().integers(1 << 30) == rng.numpy().integers(1 << 30)
    assert torch.equal(torch.rand(3, generator=rng.torch()), torch.rand(3, generator=rng.torch()))
