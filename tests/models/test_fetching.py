"""Published weights: what is known of them, and downloads that end whole, verified or said."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from leakaudit.core.cache import OfflineError, cache_dir, no_network
from leakaudit.core.errors import LeakauditError, RunError, UsageError, WeightsError
from leakaudit.models import catalogue
from leakaudit.models.catalogue import KNOWN, Weights, at_hand, known, missing, note_of, weights_dir
from leakaudit.models.fetching import fetch

BODY = bytes(range(256)) * 4096  # 1 MiB
HASH = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves BODY as /whole and /plain (which knows no ranges); others fail in their own way."""

    asked: list[str | None]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        start = int(wanted[6:-1]) if wanted else 0
        if self.path == "/missing":
            self.send_error(404)
        elif self.path == "/whole" and start >= len(BODY):
            self.send_error(416)
        elif self.path == "/whole" and start:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
            self._give(BODY[start:], len(BODY) - start)
        elif self.path == "/short":
            self.send_response(200)
            self._give(BODY[:300_000], len(BODY))
        elif self.path == "/page":
            self.send_response(200)
            self._give(b"<html>sign in</html>", 20)
        elif self.path == "/endless":
            self.send_response(200)
            self._give(b"", 1 << 40)
        else:
            self.send_response(200)
            self._give(BODY, len(BODY))

    def _give(self, body: bytes, length: int) -> None:
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        made.asked = []
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEAKAUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("LEAKAUDIT_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def of(server: Server, path: str, sha256: str | None = HASH) -> Weights:
    return Weights("toy:net", f"http://127.0.0.1:{server.server_port}{path}", 1.0, sha256, "none")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# What is known


def test_every_file_of_torchvision_carries_the_hash_its_name_tells() -> None:
    of_torchvision = [w for w in KNOWN.values() if w.name.startswith("torchvision:")]
    assert len(of_torchvision) == 11
    for weights in of_torchvision:
        prefix = weights.file.removesuffix(".pth").rpartition("-")[2]
        assert weights.sha256 is not None and len(weights.sha256) == 64
        assert weights.sha256.startswith(prefix)


def test_names_urls_and_sizes_are_those_of_torchvision() -> None:
    from torchvision import models

    for weights in KNOWN.values():
        kind, _, name = weights.name.partition(":")
        if kind != "torchvision":
            continue
        network, _, version = name.partition(".")
        enum = models.get_model_weights(network)
        theirs = enum[f"IMAGENET1K_{(version or 'v1').upper()}"]
        assert theirs.url == weights.url
        assert theirs.meta["_file_size"] == weights.mebibytes
        # Where a network has several files, a bare name would hide which one is meant.
        several = [w for w in enum if w.name.startswith("IMAGENET1K_V")]
        assert (len(several) > 1) == bool(version)


def test_facenet_files_are_those_that_the_package_would_load() -> None:
    import inspect

    from facenet_pytorch.models import inception_resnet_v1

    source = inspect.getsource(inception_resnet_v1)
    for name in ("facenet:vggface2", "facenet:casia-webface"):
        assert KNOWN[name].url in source


def test_an_unknown_name_is_said_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean torchvision:resnet18"):
        known("torchvision:resnet19")
    assert "leakaudit fetch torchvision:resnet50.v1 or leakaudit fetch" in missing(
        "torchvision:resnet50"
    )
    assert "fetch" not in missing("timm:resnet18.a1_in1k")


def test_the_cache_follows_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert weights_dir() == tmp_path / "cache" / "weights"
    monkeypatch.delenv("LEAKAUDIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_dir() == tmp_path / "xdg" / "leakaudit"


# Downloads


def test_a_file_comes_whole_is_verified_and_not_fetched_twice(
    server: Server, tmp_path: Path
) -> None:
    told: list[tuple[int, int | None]] = []
    got = fetch(of(server, "/whole"), tmp_path / "w", report=lambda *now: told.append(now))
    assert got.path.read_bytes() == BODY and got.made and got.checked == "known"
    assert told[-1] == (len(BODY), len(BODY))
    again = fetch(of(server, "/whole"), tmp_path / "w")
    assert not again.made and len(server.asked) == 1
    assert files(tmp_path / "w") == ["whole", "whole.sha256"]


def test_a_wrong_hash_is_said_and_nothing_is_left(server: Server, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"has the SHA-256 .* it was deleted") as caught:
        fetch(of(server, "/whole", "0" * 64), tmp_path / "w")
    assert caught.value.exit_code == 4
    assert files(tmp_path / "w") == []


def test_a_web_page_in_the_files_place_is_said(server: Server, tmp_path: Path) -> None:
    for sha256 in (HASH, None):
        with pytest.raises(RunError, match="is a web page"):
            fetch(of(server, "/page", sha256), tmp_path / "w")
    assert files(tmp_path / "w") == []


def test_a_download_that_broke_off_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"broke off after 300,000 of 1,048,576 bytes"):
        fetch(of(server, "/short"), tmp_path / "w")
    assert files(tmp_path / "w") == [".short.part"]
    (tmp_path / "w" / ".short.part").rename(tmp_path / "w" / ".whole.part")
    got = fetch(of(server, "/whole"), tmp_path / "w")
    assert server.asked == [None, "bytes=300000-"]
    assert got.path.read_bytes() == BODY
    assert files(tmp_path / "w") == ["whole", "whole.sha256"]


@pytest.mark.parametrize("path", ["/plain", "/whole"])
@pytest.mark.parametrize("there", [700_000, len(BODY), len(BODY) + 5])
def test_a_server_that_cannot_go_on_begins_anew(
    server: Server, tmp_path: Path, path: str, there: int
) -> None:
    (tmp_path / f".{path[1:]}.part").write_bytes(BODY[:there].ljust(there, b"x"))
    assert fetch(of(server, path), tmp_path).path.read_bytes() == BODY


def test_parts_are_not_joined_where_no_hash_would_tell(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".whole.part").write_bytes(b"of another file")
    got = fetch(of(server, "/whole", None), tmp_path)
    assert server.asked == [None] and got.path.read_bytes() == BODY


def test_trust_on_first_use_is_said_and_held_later(server: Server, tmp_path: Path) -> None:
    weights = of(server, "/whole", None)
    assert fetch(weights, tmp_path).checked == "first"
    assert note_of(tmp_path / "whole").read_text() == f"{HASH}  whole\n"
    (tmp_path / "whole").unlink()
    assert fetch(weights, tmp_path).checked == "noted"
    (tmp_path / "whole").write_bytes(b"changed")
    with pytest.raises(RunError, match="another hash"):
        fetch(weights, tmp_path)


def test_the_users_own_hash_is_held(server: Server, tmp_path: Path) -> None:
    weights = of(server, "/whole", None)
    with pytest.raises(RunError, match="has the SHA-256"):
        fetch(weights, tmp_path, sha256="1" * 64)
    assert fetch(weights, tmp_path, sha256=HASH.upper()).checked == "given"
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        fetch(weights, tmp_path, sha256="abc")
    with pytest.raises(UsageError, match="Another SHA-256 is known"):
        fetch(of(server, "/whole"), tmp_path, sha256="1" * 64)


def test_what_a_server_answers_is_said_with_the_way_by_hand(server: Server, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"answered 404 .*bring the file to .*missing"):
        fetch(of(server, "/missing"), tmp_path)


def test_no_network_is_said_with_the_way_by_hand(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    weights = Weights("toy:net", f"http://127.0.0.1:{port}/net.pt", 1.0, HASH, "none")
    with pytest.raises(RunError, match=r"can't be reached: .*bring the file to") as caught:
        fetch(weights, tmp_path)
    assert caught.value.exit_code == 4
    assert files(tmp_path) == []


def test_a_server_that_sends_without_end_is_stopped(server: Server, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="far more than this file's size"):
        fetch(of(server, "/endless"), tmp_path)


def test_a_file_is_taken_from_a_path_or_a_file_url(tmp_path: Path) -> None:
    (tmp_path / "brought").write_bytes(BODY)
    weights = Weights("toy:net", "https://nowhere.invalid/net.pt", 1.0, HASH, "none")
    for number, source in enumerate((str(tmp_path / "brought"), (tmp_path / "brought").as_uri())):
        got = fetch(weights, tmp_path / str(number), source=source)
        assert got.path.read_bytes() == BODY and got.path.name == "net.pt"
    (tmp_path / "brought").write_bytes(b"other")
    with pytest.raises(RunError, match="it was deleted"):
        fetch(weights, tmp_path / "3", source=str(tmp_path / "brought"))
    assert (tmp_path / "brought").exists()
    with pytest.raises(UsageError, match="no such file"):
        fetch(weights, tmp_path / "4", source="gone.pt")
    with pytest.raises(UsageError, match="'ftp' is not fetched"):
        fetch(weights, tmp_path / "5", source="ftp://host/net.pt")


def test_offline_nothing_is_asked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAKAUDIT_OFFLINE", "1")
    with pytest.raises(UsageError, match="LEAKAUDIT_OFFLINE forbids"):
        fetch(of(server, "/whole"), tmp_path)
    assert server.asked == []
    monkeypatch.setenv("LEAKAUDIT_OFFLINE", "perhaps")
    with pytest.raises(UsageError, match="neither 1 nor 0"):
        fetch(of(server, "/whole"), tmp_path)


def test_a_folder_that_cannot_be_made_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="can't be written"):
        fetch(of(server, "/whole"), tmp_path / "file")


# At hand


def test_a_file_in_the_cache_is_found_and_a_changed_one_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Weights("toy:net", "https://host/net.pt", 1.0, HASH, "none")
    assert at_hand(weights) is None
    weights_dir().mkdir(parents=True)
    (weights_dir() / "net.pt").write_bytes(BODY)
    assert at_hand(weights) == weights_dir() / "net.pt"
    (weights_dir() / "net.pt").write_bytes(BODY + b"x")
    with pytest.raises(WeightsError, match="not toy:net's"):
        at_hand(weights)


def test_a_file_in_torchs_own_cache_is_found(tmp_path: Path) -> None:
    place = tmp_path / "torch" / "hub" / "checkpoints" / "net.pt"
    place.parent.mkdir(parents=True)
    place.write_bytes(BODY)
    assert at_hand(Weights("toy:net", "https://host/net.pt", 1.0, HASH, "none")) == place


def test_fetched_weights_are_taken_where_none_are_given_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch
    from torchvision import models

    from leakaudit.models import published
    from leakaudit.models.encoder import Wishes, load_encoder

    with pytest.raises(WeightsError, match="leakaudit fetch torchvision:squeezenet1_1"):
        load_encoder(
            "torchvision:squeezenet1_1", weights=None, layer="last", preprocessing=Wishes(64)
        )
    weights_dir().mkdir(parents=True)
    path = weights_dir() / "net.pt"
    torch.manual_seed(0)
    torch.save(models.squeezenet1_1(weights=None).state_dict(), path)
    name = "torchvision:squeezenet1_1"
    made = Weights(name, "https://host/net.pt", 1.0, catalogue.sha256_of_file(path), "none")
    monkeypatch.setattr(published, "KNOWN", {name: made})
    encoder = load_encoder(name, weights=None, layer="features.2", preprocessing=Wishes(64))
    assert encoder.weights_sha256 == made.sha256
    assert any("fetched weights net.pt" in note for note in encoder.notes)


def test_lpips_takes_the_fetched_trunk_and_asks_no_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch
    from torchvision import models

    from leakaudit.core.rng import Rng
    from leakaudit.metrics import likeness
    from leakaudit.metrics.base import Evidence

    weights_dir().mkdir(parents=True)
    path = weights_dir() / "alexnet.pth"
    torch.manual_seed(0)
    trunk = models.alexnet(weights=None)
    torch.save({n: t for n, t in trunk.state_dict().items() if n.startswith("features")}, path)
    made = Weights("toy", "https://host/alexnet.pth", 1.0, catalogue.sha256_of_file(path), "none")
    monkeypatch.setattr(likeness, "LPIPS_TRUNK", made)
    images = torch.rand(2, 3, 64, 64)
    row = Evidence("none", "toy", "BlackBox", images, images.flip(3), torch.arange(2), Rng(0))
    before = torch.random.get_rng_state()
    with no_network():
        found = likeness.Lpips()(row)
    assert found.value is not None and found.value > 0
    assert torch.equal(before, torch.random.get_rng_state())
    # The slices hold the trunk's own layers: after the first one, its first convolution's answer.
    network = likeness._network(str(path))
    first = network.net(network.scaling_layer(2 * images - 1)).relu1
    shifted = network.scaling_layer(2 * images - 1)
    assert torch.equal(first, trunk.features[0](shifted).relu())


# Offline


def test_offline_refuses_addresses_and_connections_and_ends(server: Server) -> None:
    import urllib.request

    url = f"http://127.0.0.1:{server.server_port}/whole"
    with no_network():
        with pytest.raises(OfflineError, match="--offline forbids"):
            socket.getaddrinfo("example.invalid", 80)
        with socket.socket() as wire, pytest.raises(ConnectionError):
            wire.connect(("127.0.0.1", server.server_port))
        with pytest.raises(OSError, match="--offline"):
            urllib.request.urlopen(url, timeout=5)
        one, other = socket.socketpair()  # this machine's own pipes
        one.sendall(b"x")
        assert other.recv(1) == b"x"
        one.close()
        other.close()
    assert server.asked == []
    with urllib.request.urlopen(url, timeout=5) as answer:
        assert answer.read(3) == BODY[:3]
    with no_network(active=False), urllib.request.urlopen(url, timeout=5) as answer:
        assert answer.status == 200


def test_the_offline_error_is_wrong_usage_for_us() -> None:
    error = OfflineError("x", todo="y")
    assert isinstance(error, LeakauditError) and error.exit_code == 2 and "y" in str(error)
