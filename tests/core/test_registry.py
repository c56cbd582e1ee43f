import sys
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakaudit.core.errors import UnknownNameError, UsageError
from leakaudit.core.registry import Registry, configure, parse_spec


@dataclass(frozen=True)
class Search:
    """Nested settings."""

    steps: int = 80
    rate: float = 0.1


@dataclass(frozen=True)
class Latent:
    """Settings of each type."""

    name: ClassVar[str] = "latent"

    search: Search = field(default_factory=lambda: Search(steps=60))
    restarts: int = 2
    rate: float = 0.5
    mirror: bool = False
    mode: str = "exact"


@dataclass(frozen=True)
class Other:
    """Another of its kind."""

    name: ClassVar[str] = "other-one"


ALL: Registry = Registry("attack", "leakaudit.tests", Latent, Other)


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("none", "none", {}),
        ("gaussian:", "gaussian", {}),
        ("gaussian:sigma=.5", "gaussian", {"sigma": ".5"}),
        (" crafter: beta = 2 , search.steps=9 ,", "crafter", {"beta": "2", "search.steps": "9"}),
        ("crafter:goal=identification<=0.1", "crafter", {"goal": "identification<=0.1"}),
        ("x:key=", "x", {"key": ""}),
    ],
)
def test_a_specification_is_a_name_and_settings(text, name, settings):
    assert parse_spec(text, what="defence") == (name, settings)


@pytest.mark.parametrize("text", ["", "  ", ":sigma=1"])
def test_a_specification_without_a_name_is_a_usage_error(text):
    with pytest.raises(UsageError, match="empty defence"):
        parse_spec(text, what="defence")


@pytest.mark.parametrize("text", ["gaussian:.5", "gaussian:=3", "gaussian:sigma=1,b"])
def test_a_setting_without_key_or_value_is_told_how_to_be_written(text):
    with pytest.raises(UsageError, match=r"is not key=value.*gaussian:key=value"):
        parse_spec(text, what="defence")


def test_a_setting_given_twice_is_a_usage_error():
    with pytest.raises(UsageError, match="'sigma' is given twice"):
        parse_spec("gaussian:sigma=1,sigma=2", what="defence")


WORDS = st.text("abcxyz_.", min_size=1, max_size=6)


@given(WORDS, st.dictionaries(WORDS, st.text("0123456789.e+-<", max_size=6), max_size=4))
def test_what_is_written_is_what_is_read(name, settings):
    text = name + ":" + ",".join(f"{key}={value}" for key, value in settings.items())
    assert parse_spec(text, what="defence") == (name, settings)


def test_a_class_is_made_with_its_defaults_and_settings():
    assert ALL.make("latent", {}) == Latent()
    made = ALL.make("latent", {"restarts": "3", "rate": "1e-2", "mirror": "yes", "mode": "fast"})
    assert made == Latent(restarts=3, rate=0.01, mirror=True, mode="fast")


def test_an_unknown_class_is_told_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"attack 'latnt'\. Did you mean latent\?"):
        ALL.make("latnt", {})


def test_an_unknown_setting_is_told_with_the_nearest_and_its_place():
    with pytest.raises(UnknownNameError, match=r"'restart' \(attack latent\).*restarts"):
        ALL.make("latent", {"restart": 3})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("restarts", "two"),
        ("restarts", 2.5),
        ("restarts", True),
        ("restarts", "inf"),
        ("restarts", [2]),
        ("rate", "fast"),
        ("rate", False),
        ("rate", None),
        ("mirror", "perhaps"),
        ("mirror", 2),
        ("search.steps", "many"),
    ],
)
def test_a_value_of_the_wrong_type_is_a_usage_error_that_names_the_setting(key, value):
    with pytest.raises(UsageError, match="is not of type") as caught:
        ALL.make("latent", {key: value})
    assert key.rpartition(".")[2] in str(caught.value)


@pytest.mark.parametrize("value", [3, 3.0, "3", "3.0", "3e0"])
def test_a_whole_number_may_be_written_in_any_way(value):
    made = ALL.make("latent", {"restarts": value})
    assert made.restarts == 3
    assert type(made.restarts) is int


@pytest.mark.parametrize(
    "settings",
    [
        {"search.rate": "0.3"},
        {"search": {"rate": 0.3}},
        {"search": {}, "search.rate": 0.3},
        {"search.rate": 0.3, "search": {}},
    ],
)
def test_nested_settings_keep_the_defaults_of_the_outer_class(settings):
    assert ALL.make("latent", settings).search == Search(steps=60, rate=0.3)


def test_an_unknown_nested_setting_is_told_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"'step' \(attack latent, search\).*steps"):
        ALL.make("latent", {"search.step": 3})


def test_a_number_where_a_table_belongs_is_a_usage_error():
    with pytest.raises(UsageError, match="search is a table"):
        ALL.make("latent", {"search": 3})


def test_class_variables_are_no_settings():
    with pytest.raises(UnknownNameError, match="setting 'name'"):
        ALL.make("latent", {"name": "me"})


def test_settings_are_not_changed_by_reading_them():
    settings = {"search": {"steps": "7"}, "rate": "2"}
    configure(Latent, settings, where="here")
    assert settings == {"search": {"steps": "7"}, "rate": "2"}


THEIRS = """
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from kinds import Kind

@dataclass(frozen=True)
class Good(Kind):
    name: ClassVar[str] = "theirs"
    source: ClassVar[str] = "them"
    steps: int = 3
    def act(self): ...

@dataclass(frozen=True)
class Renamed(Good):
    name: ClassVar[str] = "another"

@dataclass(frozen=True)
class Spaced(Good):
    name: ClassVar[str] = "a name.x"

@dataclass
class Thawed(Kind):
    name: ClassVar[str] = "theirs"
    source: ClassVar[str] = "them"
    def act(self): ...

class Bare(Kind):
    name = "theirs"
    source = "them"
    def act(self): ...

@dataclass(frozen=True)
class Lazy(Kind):
    name: ClassVar[str] = "theirs"
    source: ClassVar[str] = "them"

@dataclass(frozen=True)
class Silent(Kind):
    name: ClassVar[str] = "theirs"
    def act(self): ...

@dataclass(frozen=True)
class Stranger:
    name: ClassVar[str] = "theirs"

@dataclass(frozen=True)
class Unread(Good):
    steps: "Nowhere" = 3

@dataclass(frozen=True)
class Needy(Kind):
    name: ClassVar[str] = "theirs"
    source: ClassVar[str] = "them"
    weights: str
    def act(self): ...

@dataclass(frozen=True)
class Picky(Good):
    def __post_init__(self):
        raise ValueError("steps is odd")

thing = Good()
"""
KINDS = """
from abc import ABC, abstractmethod
from typing import ClassVar

class Kind(ABC):
    name: ClassVar[str]
    source: ClassVar[str]
    control: ClassVar[bool] = False
    @abstractmethod
    def act(self): ...
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts a package with entry points on the path, and gives a registry of its kind."""
    (tmp_path / "kinds.py").write_text(KINDS)
    (tmp_path / "theirs.py").write_text(THEIRS)
    (tmp_path / "broken.py").write_text("import sys\nraise ImportError('no\\nlibfoo')")
    (tmp_path / "leaving.py").write_text("raise SystemExit(1)")
    monkeypatch.syspath_prepend(tmp_path)
    import kinds  # type: ignore[import-not-found]

    @dataclass(frozen=True)
    class Ours(kinds.Kind):
        name: ClassVar[str] = "ours"
        source: ClassVar[str] = "us"

        def act(self):
            return None

    @dataclass(frozen=True)
    class Second(kinds.Kind):
        name: ClassVar[str] = "second"
        source: ClassVar[str] = "us"

        def act(self):
            return None

    def install(*points, package="theirs"):
        info = tmp_path / f"{package}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text("[leakaudit.tests]\n" + "\n".join(points))
        return Registry("attack", "leakaudit.tests", Ours, Second)

    yield install
    for name in ("kinds", "theirs", "broken", "leaving"):
        sys.modules.pop(name, None)


def test_another_package_adds_a_class_by_its_entry_point(installed):
    registry = installed("theirs = theirs:Good")
    assert registry.names() == ["ours", "second", "theirs"]
    assert registry.foreign() == ["theirs"]
    assert registry.make("theirs", {"steps": "5"}).steps == 5
    assert [cls.name for cls in registry] == ["ours", "second"]


def test_the_nearest_name_may_be_another_packages(installed):
    with pytest.raises(UnknownNameError, match="Did you mean theirs"):
        installed("theirs = theirs:Good").find("thiers")


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("broken", "can't be loaded: ImportError: no libfoo"),
        ("leaving", "can't be loaded: SystemExit"),
        ("gone", "can't be loaded: ModuleNotFoundError"),
        ("theirs:Gone", "can't be loaded: AttributeError"),
        ("theirs:Unread", "can't be loaded: NameError"),
        ("theirs:thing", "is a Good, not a class"),
        ("theirs:Stranger", r"doesn't derive from kinds\.Kind"),
        ("theirs:Thawed", "isn't a frozen dataclass"),
        ("theirs:Bare", "isn't a frozen dataclass"),
        ("theirs:Lazy", "doesn't define act"),
        ("theirs:Silent", "doesn't say its source"),
        ("theirs:Renamed", "calls itself 'another'"),
    ],
)
def test_a_broken_entry_point_is_an_error_that_names_the_package(installed, target, why):
    registry = installed(f"theirs = {target}", "fine = theirs:Good")
    assert registry.names() == ["ours", "second", "theirs", "fine"]  # nobody is imported for that
    with pytest.raises(UsageError, match=why) as caught:
        registry.find("theirs")
    assert "attack 'theirs' of the package theirs 1.2" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert registry.find("ours").name == "ours"


def test_a_name_that_no_gate_could_spell_is_refused(installed):
    with pytest.raises(UsageError, match="letters, digits"):
        installed("a name.x = theirs:Spaced").find("a name.x")


def test_a_name_of_ours_stays_ours(installed):
    registry = installed("ours = broken")
    assert registry.names() == ["ours", "second"]
    assert registry.find("ours").source == "us"


def test_two_packages_with_one_name_are_told_apart_by_nobody(installed):
    installed("theirs = theirs:Good", package="one")
    registry = installed("theirs = theirs:Renamed", package="other")
    with pytest.raises(UsageError, match=r"Two packages.*one 1\.2 and other 1\.2"):
        registry.find("theirs")


@pytest.mark.parametrize(("target", "why"), [("Needy", "weights"), ("Picky", "steps is odd")])
def test_a_class_that_can_not_be_made_is_a_usage_error(installed, target, why):
    with pytest.raises(UsageError, match=rf"{why}.*attack theirs"):
        installed(f"theirs = theirs:{target}").make("theirs", {})
