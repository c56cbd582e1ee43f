from datetime import date

import pytest

from leakaudit.audit.policy import read_policy
from leakaudit.core.errors import UsageError

WHOLE = """
# what a release may leak
[[gate]]
expr = "worst.identification>0.2"
id = "naming"
min_n = 40

[[gate]]
expr = "utility.auc_drop>0.05"
severity = "warn"

[[baseline]]
row = "worst.ssim"
result = ["runs/a.json", "runs/b.json"]
allow = 0.01

[[suppress]]
id = "naming"
defence = "crafter:beta=2"
reason = "new camera"
owner = "ada"
expires = 2030-01-31
"""


@pytest.fixture
def policy(tmp_path):
    def read(text):
        path = tmp_path / "policy.toml"
        path.write_text(text)
        return read_policy(path)

    return read


def test_a_policy_is_read_with_its_lines(policy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = policy(WHOLE)
    naming, drop = found.gates
    assert (naming.id, naming.severity, naming.min_n, naming.line) == ("naming", "fail", 40, 3)
    assert (drop.id, drop.severity, drop.min_n, drop.line) == ("gate-2", "warn", 0, 8)
    assert naming.file == "policy.toml"
    (limit,) = found.limits
    assert limit.rule.id == "baseline-1"
    assert limit.results == (tmp_path / "runs/a.json", tmp_path / "runs/b.json")
    assert (limit.allow, limit.spread) == (0.01, None)
    (hush,) = found.hushes
    assert (hush.id, hush.expires, hush.owner) == ("naming", date(2030, 1, 31), "ada")


def test_a_policy_elsewhere_is_named_without_its_folders(policy, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert policy(WHOLE).gates[0].file == "policy.toml"


def test_tables_written_in_one_line_have_no_line_of_their_own(policy):
    assert policy('gate = [{expr = "ssim>0.3"}]').gates[0].line is None


GATE = '[[gate]]\nexpr = "ssim>0.3"\nid = "a"\n'
HUSH = '[[suppress]]\nid = "a"\nreason = "r"\nowner = "o"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "asks for nothing"),
        ("[[gate]", "is no TOML"),
        ("[[gates]]\nexpr = 'a>1'", "Did you mean gate?"),
        ("[gate]\nexpr = 'a>1'", "two brackets"),
        ("gate = [1]", "list of tables"),
        ("\n[[gate]]\nexp = 'a>1'", "line 2, [[gate]] 1). Did you mean expr?"),
        ("[[gate]]\nid = 'a'", "'expr' is missing"),
        ("[[gate]]\nexpr = 'a>1'\nmin_n = true", "'min_n' must be of type int"),
        ("[[gate]]\nexpr = 'a>1'\nmin_n = -1", "negative"),
        ("[[gate]]\nexpr = 'a>1'\nseverity = 'warning'", "Did you mean warn?"),
        ("[[gate]]\nexpr = 'a>1'\nid = 'a b'", "is no id"),
        ("[[gate]]\nexpr = 'a>1'\nid = ' '", "'id' is empty"),
        (GATE + "\n[[gate]]\nexpr = 'a=1'", "line 5, [[gate]] 2: 'a=1'"),
        (GATE + GATE, "Two gates have the id 'a'"),
        ("[[baseline]]\nrow = 'a>1'\nresult = 'x'", "can't be read"),
        ("[[baseline]]\nrow = 'a'\nresult = []", "a list of them"),
        ("[[baseline]]\nrow = 'a'\nresult = 'x'\nallow = -0.1", "'allow' must be 0 or more"),
        ("[[baseline]]\nrow = 'a'\nresult = 'x'\nspread = nan", "'spread' must be 0 or more"),
        (HUSH + "expires = 2030-01-01", "asks for nothing"),
        (GATE + HUSH, "'expires' is missing"),
        (GATE + HUSH + "expires = 'soon'", "is not a date"),
        (GATE + HUSH.replace('"a"', '"b"') + "expires = 2030-01-01", "Unknown gate id 'b'"),
        (GATE + (HUSH + "expires = 2030-01-01\n") * 2, "suppressed twice"),
    ],
)
def test_what_is_wrong_with_a_policy_is_said_with_its_place(policy, text, said):
    with pytest.raises(UsageError) as caught:
        policy(text)
    assert said in str(caught.value)
    assert "policy.toml" in str(caught.value)


def test_a_policy_that_is_not_there_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="can't be read"):
        read_policy(tmp_path / "gone.toml")
