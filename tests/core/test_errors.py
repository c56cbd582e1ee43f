import pytest

from leakaudit.core import errors


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.LeakauditError, 4),
        (errors.UsageError, 2),
        (errors.InputError, 2),
        (errors.WeightsError, 2),
        (errors.InconclusiveError, 3),
        (errors.RunError, 4),
        (errors.InterruptedRun, 130),
    ],
)
def test_each_error_carries_its_exit_code_and_is_a_leakaudit_error(kind, code):
    error = kind("It went wrong", where="--layer", todo="Do better")
    assert isinstance(error, errors.LeakauditError)
    assert error.exit_code == code
    assert str(error) == "It went wrong (--layer). Do better."


def test_no_error_claims_the_exit_code_of_a_breached_gate():
    def below(kind):
        return [kind, *(deeper for child in kind.__subclasses__() for deeper in below(child))]

    assert 1 not in {kind.exit_code for kind in below(errors.LeakauditError)}


@pytest.mark.parametrize(
    ("what", "todo", "told"),
    [
        ("It went wrong", None, "It went wrong."),
        ("It went wrong.", "Why?", "It went wrong. Why?"),
        ("Stop!", "Now", "Stop! Now."),
    ],
)
def test_sentences_end_with_one_mark(what, todo, told):
    assert str(errors.UsageError(what, todo=todo)) == told


def test_an_unknown_name_comes_with_the_nearest_ones():
    error = errors.UnknownNameError("attack", "blackbox-decodr", ["whitebox", "blackbox-decoder"])
    assert error.near[0] == "blackbox-decoder"
    assert str(error) == "Unknown attack 'blackbox-decodr'. Did you mean blackbox-decoder?"
    assert error.exit_code == 2


def test_an_unknown_name_without_a_near_one_comes_with_all():
    error = errors.UnknownNameError("preset", "zzz", ["quick", "paper"], where="--preset")
    assert error.near == []
    assert str(error) == "Unknown preset 'zzz' (--preset). Known: paper, quick."
