import pytest

from audit.toy_subject import cheapen


@pytest.fixture(autouse=True, scope="module")
def _quick_and_the_same_everywhere(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        cheapen(patch, tmp_path_factory.mktemp("audit"))
        yield
