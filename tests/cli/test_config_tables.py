"""Tables of networks in the configuration: which option each key stands for, and what wins."""

import pytest

import leakaudit.cli.doctor
import leakaudit.cli.layers
import leakaudit.cli.scan  # noqa: F401 - commands register themselves
from leakaudit.audit import own
from leakaudit.audit.own import Sources

FLAGS = ("scan", "--layer", "0", "--images", "faces", "--public", "crowd")


class EnoughError(Exception):
    pass


@pytest.fixture
def sources(leakaudit, monkeypatch):
    """What a scan reads its subject from, by command line; nothing is scanned."""
    seen = []

    def stop(found, **_):
        seen.append(found)
        raise EnoughError

    monkeypatch.setattr(own, "own_subjects", stop)

    def read(*arguments: str) -> Sources:
        done = leakaudit(*FLAGS, *arguments)
        assert len(seen) == 1, done.said
        return seen.pop()

    return read


def configure(tmp_path, text: str, name: str = "leakaudit.toml") -> None:
    (tmp_path / "work" / name).write_text(text)


def test_each_key_stands_for_its_option(sources, tmp_path):
    configure(
        tmp_path,
        """
        [encoder]
        spec = "net.py:make"
        weights = "w.pt"
        input_size = 128
        mean = [0.5, 0.25, 0.125]
        std = "1,2,3"
        channels = "bgr"
        [oracle]
        spec = ["trained", "judge.py:make"]
        weights = "j.pt"
        input_size = 112
        mean = [0.5, 0.5, 0.5]
        std = [0.5, 0.5, 0.5]
        channels = "rgb"
        [prior]
        spec = "prior.safetensors"
        """,
    )
    found = sources()
    assert (found.encoder, str(found.weights), found.size) == ("net.py:make", "w.pt", 128)
    assert found.wishes.mean == (0.5, 0.25, 0.125) and found.wishes.std == (1, 2, 3)
    assert found.wishes.channels == "bgr"
    assert found.oracle == ("trained", "judge.py:make")
    assert [str(path) for path in found.oracle_weights] == ["j.pt"]
    assert found.judge_input.over(64).height_width == (112, 112)
    assert found.judge_input.mean == found.judge_input.std == (0.5, 0.5, 0.5)
    assert found.judge_input.channels == "rgb"
    assert str(found.prior) == "prior.safetensors"


def test_a_flag_wins_over_the_environment_the_commands_table_and_the_networks(
    sources, tmp_path, monkeypatch
):
    assert sources("--encoder", "e.py:f").size == 64  # the option's own default
    network = "[encoder]\nspec = 'net.py:make'\ninput-size = 32\n"
    configure(tmp_path, network)
    assert sources().size == 32
    configure(tmp_path, network + "[scan]\ninput-size = 128\nchannels = 'bgr'\n")
    found = sources()
    assert (found.size, found.encoder, found.channels) == (128, "net.py:make", "bgr")
    monkeypatch.setenv("LEAKAUDIT_INPUT_SIZE", "256")
    monkeypatch.setenv("LEAKAUDIT_ORACLE", "trained")
    assert sources().size == 256
    found = sources("--input-size", "64", "--oracle", "a.py:f", "--oracle", "b.py:f")
    assert found.size == 64 and found.oracle == ("a.py:f", "b.py:f")


def test_a_preset_sets_below_the_file_and_above_the_classes_own_defaults(
    leakaudit, tmp_path, monkeypatch
):
    from leakaudit.audit import scan as scan_module

    plans = []

    def stop(subject, plan, *_):
        plans.append(plan)
        raise EnoughError

    monkeypatch.setattr(scan_module, "run", stop)
    (tmp_path / "mine.toml").write_text("[attacks.blackbox-decoder]\ntraining.steps = 7\n")
    leakaudit("scan", "--demo", "--defence", "none")
    configure(tmp_path, f"[scan]\npreset = '{tmp_path / 'mine.toml'}'\n")
    leakaudit("scan", "--demo", "--defence", "none")
    leakaudit("scan", "--demo", "--defence", "none", "--preset", "standard")
    steps = [plan.attacks[0].training.steps for plan in plans]
    assert steps == [250, 7, 1000]
    batch = {plan.attacks[0].training.batch for plan in plans}
    assert batch == {48}  # nobody says it: the dataclass does


def test_the_demo_leaves_the_tables_of_networks_alone(leakaudit, tmp_path, monkeypatch):
    configure(tmp_path, "[encoder]\nspec = 'net.py:make'\n[oracle]\nspec = 'judge.py:make'\n")
    done = leakaudit("scan", "--demo", "--attacks", "blackbox-decodr")
    assert "Unknown attack" in done.said


@pytest.mark.parametrize(
    ("typed", "variable"),
    [(["--encoder", "demo"], {}), (["--encoder=demo"], {}), ([], {"LEAKAUDIT_DEMO": "1"}),
     ([], {"LEAKAUDIT_ENCODER": "demo"})],
)  # fmt: skip
def test_the_demo_is_known_however_it_is_asked_for(
    leakaudit, tmp_path, monkeypatch, typed, variable
):
    configure(tmp_path, "[encoder]\nspec = 'net.py:make'\nweights = 'w.pt'\nmean = [1, 1, 1]\n")
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    done = leakaudit("scan", *typed, "--attacks", "blackbox-decodr")
    assert "Unknown attack" in done.said


def test_a_pyproject_and_other_commands_take_the_tables_too(leakaudit, tmp_path):
    text = "[tool.leakaudit.encoder]\nspec = 'gone.py:make'\n"
    configure(tmp_path, text, "pyproject.toml")
    done = leakaudit("doctor", "--images", "faces")
    assert done.code == 2 and "gone.py" in done.said


def test_a_command_that_names_its_network_otherwise_is_left_alone(leakaudit, tmp_path):
    configure(tmp_path, "[encoder]\nspec = 'gone.py:make'\nweights = 'gone.pt'\n")
    (tmp_path / "work" / "net.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Conv2d(3, 4, 4, 4)\n"
    )
    assert leakaudit("layers", "net.py:make").code == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[encoder]\nspek = 'x'", "Did you mean spec"),
        ("[encoder]\nlayer = 'x'", "Unknown key 'layer'"),
        ("[encodr]\nspec = 'x'", "Did you mean encoder"),
        ("encoder = 'x'", "'encoder' must be a table"),
        ("[oracle]\nalign = 'mtcnn'", "No command has the option --oracle-align"),
        ("[encoder]\nmean = [1, true, 1]", "not a word or number"),
        ("[encoder]\nspec = ['a', 'b']", "not a word or number"),
        ("[encoder]\ninput_size = 'large'", "input-size"),
        ("[encoder]\nspec = 'e.py:f'\nmean = [0.5, 0.5]", "Three numbers by commas"),
    ],
)
def test_a_faulty_table_ends_with_two_and_says_what_is_wrong(leakaudit, tmp_path, text, told):
    configure(tmp_path, text)
    done = (
        leakaudit(*FLAGS, "--encoder", "net.py:make") if "spec" not in text else leakaudit(*FLAGS)
    )
    assert done.code == 2
    assert told.lower() in done.said.lower()


def test_help_is_there_although_the_configuration_is_faulty(leakaudit, tmp_path):
    configure(tmp_path, "[scan]\nprset = 'quick'\n")
    assert leakaudit("scan", "--help").code == 0
    assert leakaudit("scan", "--demo").code == 2
