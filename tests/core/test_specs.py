import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakaudit.core.errors import UsageError
from leakaudit.core.specs import is_factory, parse_factory, read_value, split_specs


@pytest.mark.parametrize(
    "text", ["my.py:f", "a/b.py:f:k=1", "/a/b.py:f", "pkg.mod:f", " my.py", "a/b"]
)
def test_a_file_or_a_dotted_name_before_the_colon_is_a_users_factory(text):
    assert is_factory(text)


@pytest.mark.parametrize("text", ["none", "gaussian:sigma=.5", "crafter:goal=a.b/c", "linkage", ""])
def test_a_plain_name_is_ours_whatever_its_settings_hold(text):
    assert not is_factory(text)


@pytest.mark.parametrize(
    ("text", "source", "settings", "label", "name"),
    [
        ("my.py:make", "my.py", {}, "my.py:make", "my-make"),
        (
            " ../x/my.py:make:sigma=.5,k=3,on=true,who=ada ", "../x/my.py",
            {"sigma": 0.5, "k": 3, "on": True, "who": "ada"},
            "my.py:make:sigma=.5,k=3,on=true,who=ada", "my-make",
        ),
        ("pkg.mod:make:k=-1e3", "pkg.mod", {"k": -1000.0}, "pkg.mod:make:k=-1e3", "mod-make"),
        ("a b/ö x.v2.py:make", "a b/ö x.v2.py", {}, "ö x.v2.py:make", "x-v2-make"),
    ],
)  # fmt: skip
def test_a_specification_names_source_factory_and_settings(text, source, settings, label, name):
    spec = parse_factory(text, what="defence")
    assert (spec.source, spec.factory, spec.settings) == (source, "make", settings)
    assert [type(v) for v in spec.settings.values()] == [type(v) for v in settings.values()]
    assert (spec.label, spec.name) == (label, name)


def test_no_folder_gets_into_what_a_result_shows():
    spec = parse_factory("/home/ada/my.py:make:weights=/home/ada/w.pt,k=1", what="defence")
    assert spec.settings["weights"] == "/home/ada/w.pt"
    shown = f"{spec.label} {spec.place} {spec.name} {spec.shown_settings}"
    assert "ada" not in shown and "home" not in shown
    assert spec.label == "my.py:make:weights=w.pt,k=1"
    assert spec.shown_settings == {"weights": "w.pt", "k": 1}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("my.py", "No factory is named"),
        ("my.py:", "No factory is named"),
        ("my.py:sigma=.5", "'sigma=.5' isn't the name of a factory"),
        ("my.py:make:sigma", "'sigma' is not key=value"),
        ("my.py:make:a=1,a=2", "'a' is given twice"),
        ("my.py:make:search.steps=1", "can't be an argument"),
        ("dir/my:make", "neither a Python file nor a module"),
        (".my:make", "neither a Python file nor a module"),
    ],
)
def test_a_wrong_specification_is_told_how_to_be_written(text, why):
    with pytest.raises(UsageError, match=why) as caught:
        parse_factory(text, what="defence")
    assert "defence" in str(caught.value)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "", "3 apples", "None"])
def test_what_is_no_number_that_json_can_hold_stays_a_word(text):
    assert read_value(text) == text


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans()))
def test_numbers_are_read_as_they_were_written(value):
    read = read_value(str(value))
    assert read == value and type(read) is type(value)


def test_presets_set_what_is_not_typed():
    spec = parse_factory("my.py:make:a=1", what="attack").over({"a": 5, "b": 6})
    assert spec.settings == {"a": 1, "b": 6}
    assert spec.label == "my.py:make:a=1"


def test_two_ways_to_write_one_path_are_the_same_call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = parse_factory("my.py:make:a=1", what="attack")
    assert one.same_as(parse_factory(f"{tmp_path}/x/../my.py:make:a=1", what="attack"))
    for other in ("my.py:make:a=2", "my.py:other:a=1", "x/my.py:make:a=1", "my.mod:make:a=1"):
        assert not one.same_as(parse_factory(other, what="attack"))


@pytest.mark.parametrize(
    ("text", "specs"),
    [
        ("", []),
        (" , ", []),
        ("a,b , c", ["a", "b", "c"]),
        ("a,my.py:f:x=1,y=2,b", ["a", "my.py:f:x=1,y=2", "b"]),
        ("my.py:f:x=1,my.py:g:x=1,z=3", ["my.py:f:x=1", "my.py:g:x=1,z=3"]),
        ("my.py:f:x=1,y=a:b", ["my.py:f:x=1,y=a:b"]),
        ("x=1,a", ["x=1", "a"]),
    ],
)
def test_settings_stay_with_their_specification_where_commas_divide(text, specs):
    assert split_specs(text) == specs
