import pytest


@pytest.fixture(autouse=True)
def _no_weights_in_a_cache(monkeypatch, tmp_path):
    """LPIPS reads torch's cache, which differs from machine to machine."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch-home"))
