"""Secret keys: made once and private; what follows from them tells nothing without them."""

import os
import stat
import threading

import pytest

from leakaudit.core.errors import InputError, UsageError
from leakaudit.core.keys import (
    key_id,
    keyed_rng,
    pseudonym,
    read_key,
    read_or_make_key,
    secret_key,
    seed_key,
)


def test_a_key_is_made_once_and_read_afterwards(tmp_path):
    key, made = read_or_make_key(tmp_path / "k")
    assert made
    assert len(key) == 32
    assert read_or_make_key(tmp_path / "k") == (key, False)
    assert secret_key(str(tmp_path / "k")) == key
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["k"]


def test_two_keys_differ(tmp_path):
    assert secret_key(tmp_path / "a") != secret_key(tmp_path / "b")


def test_processes_that_begin_together_get_one_key(tmp_path):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(read_or_make_key(tmp_path / "k")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({key for key, _ in found}) == 1
    assert sum(made for _, made in found) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_key_of_others_is_refused(tmp_path, mode):
    secret_key(tmp_path / "k")
    os.chmod(tmp_path / "k", mode)
    with pytest.raises(UsageError, match="chmod 600"):
        read_key(tmp_path / "k")


@pytest.mark.parametrize("text", ["", "leakaudit-key-1:", "leakaudit-key-1:" + "g" * 64, "0" * 64])
def test_what_is_no_key_is_refused(tmp_path, text):
    (tmp_path / "k").write_text(text)
    os.chmod(tmp_path / "k", 0o600)
    with pytest.raises(InputError, match="not a leakaudit key"):
        read_key(tmp_path / "k")


def test_a_missing_key_is_said(tmp_path):
    with pytest.raises(InputError, match="can't be read"):
        read_key(tmp_path / "k")


def test_what_follows_from_a_key_follows_from_key_purpose_and_content():
    one, two = seed_key(1), seed_key(2)
    assert one != two
    assert key_id(one) != key_id(two)
    assert key_id(one) not in one.hex()
    assert pseudonym(one, "ada.png") == pseudonym(one, "ada.png")
    assert len({pseudonym(k, n) for k in (one, two) for n in ("ada", "ben")}) == 4
    states = {keyed_rng(k, w, c).state for k in (one, two) for w in "ab" for c in (b"", b"x")}
    assert len(states) == 8
