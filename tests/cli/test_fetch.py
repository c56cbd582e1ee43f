"""``leakaudit fetch`` as typed."""

import hashlib
import socket

import pytest

import leakaudit.cli.doctor
import leakaudit.cli.fetch
import leakaudit.cli.layers
import leakaudit.cli.prior
import leakaudit.cli.scan  # noqa: F401 - commands register themselves
from leakaudit.audit import prior_training
from leakaudit.models import catalogue
from leakaudit.models.catalogue import Weights

BODY = b"weights" * 100_000
HASH = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A file on this disk in the catalogue's place, once with and once without a hash."""
    (tmp_path / "toy.pt").write_bytes(BODY)
    (tmp_path / "free.pt").write_bytes(BODY)
    made = {
        "toy:net": Weights("toy:net", (tmp_path / "toy.pt").as_uri(), 0.6676, HASH, "toy terms"),
        "toy:free": Weights("toy:free", (tmp_path / "free.pt").as_uri(), 0.6676, None, "terms"),
    }
    monkeypatch.setattr(catalogue, "KNOWN", made)
    return tmp_path


def test_without_names_it_lists_and_fetches_nothing(leakaudit, tmp_path):
    done = leakaudit("fetch")
    assert done.code == 0 and done == leakaudit("fetch", "--list")
    assert "facenet:vggface2" in done.out and "alexnet-owt-7be5be79.pth" in done.out
    assert str(tmp_path / "cache" / "weights") in done.out
    assert "its first fetch" in done.out.split("facenet:casia-webface")[1].splitlines()[0]
    assert not (tmp_path / "cache").exists()


def test_a_fetched_file_is_told_by_its_path_on_stdout(leakaudit, toy):
    done = leakaudit("fetch", "toy:net")
    place = toy / "cache" / "weights" / "toy.pt"
    assert done.code == 0, done.said
    assert done.out.strip() == str(place) and place.read_bytes() == BODY
    assert "the SHA-256 is the known one" in done.said and "toy terms" in done.said
    assert "yes" in leakaudit("fetch").out.split("toy:net")[1].splitlines()[0]
    again = leakaudit("fetch", "toy:net")
    assert again.code == 0 and "it was there already" in again.said


def test_trust_on_first_use_is_said(leakaudit, toy):
    done = leakaudit("fetch", "toy:free", "--dir", toy / "mine")
    assert done.code == 0
    assert "no SHA-256 is known" in done.said and HASH in done.said
    assert (toy / "mine" / "free.pt.sha256").read_text().startswith(HASH)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["toy:nett"], 2, "Did you mean toy:net"),
        (["toy:net", "toy:free", "--sha256", "0" * 64], 2, "one name at a time"),
        (["toy:net", "--list"], 2, "--list goes alone"),
        (["toy:free", "--sha256", "xyz"], 2, "64 hexadecimal digits"),
        (["toy:free", "--sha256", "0" * 64], 4, "it was deleted"),
        (["toy:free", "--from", "gone.pt"], 2, "no such file"),
        (["toy:free", "--from", "."], 2, "a folder"),
        (["toy:net", "--from", "gopher://x/y"], 2, "'gopher' is not fetched"),
    ],
)
def test_what_goes_wrong_ends_with_its_code(leakaudit, toy, arguments, code, told):
    done = leakaudit("fetch", *arguments)
    assert done.code == code, done.said
    assert told in done.said
    assert done.out == ""


def test_offline_fetch_is_refused_before_any_connection(leakaudit, monkeypatch):
    monkeypatch.setenv("LEAKAUDIT_OFFLINE", "1")
    done = leakaudit("fetch", "facenet:vggface2")
    assert done.code == 2 and "LEAKAUDIT_OFFLINE" in done.said


def test_a_scan_offline_stops_a_factory_that_downloads(leakaudit, tmp_path):
    (tmp_path / "work" / "net.py").write_text(
        "import urllib.request\ndef make():\n    urllib.request.urlopen('http://127.0.0.1:9/w')\n"
    )
    for name in ("a", "b"):
        (tmp_path / "work" / name).mkdir()
    done = leakaudit(
        "scan", "--encoder", "net.py:make", "--layer", "0", "--images", "a", "--public", "b",
        "--offline",
    )  # fmt: skip
    assert done.code == 2
    assert "--offline forbids" in done.said and "net.py" in done.said


@pytest.mark.parametrize(
    "arguments",
    [
        ("layers", "net.py:make"),
        ("doctor", "--encoder", "net.py:make", "--images", "faces"),
    ],
)
@pytest.mark.parametrize("how", ["option", "variable"])
def test_offline_stops_what_looks_at_a_factory_that_downloads(
    leakaudit, tmp_path, monkeypatch, arguments, how
):
    (tmp_path / "work" / "net.py").write_text(
        "import urllib.request\ndef make():\n    urllib.request.urlopen('http://127.0.0.1:9/w')\n"
    )
    if how == "variable":
        monkeypatch.setenv("LEAKAUDIT_OFFLINE", "1")
    done = leakaudit(*arguments, *(["--offline"] if how == "option" else []))
    assert done.code == 2, done.said
    assert "--offline forbids" in done.said and "net.py" in done.said
    monkeypatch.delenv("LEAKAUDIT_OFFLINE", raising=False)
    allowed = leakaudit(*arguments)  # the network is there again
    assert allowed.code == 2
    assert "--offline" not in allowed.said and "Connection refused" in allowed.said


def test_a_prior_is_trained_offline_without_the_network(leakaudit, monkeypatch):
    def asks(*_, **__):
        socket.create_connection(("127.0.0.1", 9))

    monkeypatch.setattr(prior_training, "train_to_file", asks)
    done = leakaudit("prior", "train", "--public", "a", "--out", "p.safetensors", "--offline")
    assert done.code == 2
    assert "--offline forbids" in done.said
