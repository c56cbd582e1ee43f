from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakaudit.core import registry as module
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


class _Point:
    name = "theirs"

    @staticmethod
    def load():
        return Other


def test_another_package_adds_a_class_by_its_entry_point(monkeypatch):
    monkeypatch.setattr(
        module, "entry_points", lambda *, group: [_Point] if "tests" in group else []
    )
    assert ALL.names() == ["latent", "other-one", "theirs"]
    assert ALL.make("theirs", {}) == Other()
    assert [cls.name for cls in ALL] == ["latent", "other-one"]
