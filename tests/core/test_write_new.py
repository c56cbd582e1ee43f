import errno
import os

import pytest

from leakaudit.core.files import write_new


@pytest.mark.parametrize("links", [True, False])
def test_only_the_first_writes_whether_there_are_links_or_not(tmp_path, monkeypatch, links):
    def refused(*_):
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "deep" / "key"
    assert write_new(path, "one", mode=0o600)
    assert not write_new(path, b"two", mode=0o600)
    assert path.read_text() == "one"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]
