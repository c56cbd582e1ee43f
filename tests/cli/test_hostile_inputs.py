"""Broken and hostile inputs: each ends with 2, or is left out, and the cause is named."""

import csv
import os
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import leakaudit.cli.scan  # noqa: F401 - the command registers itself
from leakaudit.audit import own
from leakaudit.core.errors import UsageError
from leakaudit.models.weights import save_safetensors

NET = """
from torch import nn
def make():
    return nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU())
"""
ENOUGH = "Enough was read"


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 4, 4)).state_dict()


@pytest.fixture
def faces(tmp_path):
    """Three people with three pictures each in ``faces``, and six of other people in ``crowd``."""
    draw = np.random.default_rng(0)
    places = [f"faces/{who}/{k}.png" for who in "abc" for k in range(3)]
    for name in (*places, *(f"crowd/{k}.png" for k in range(6))):
        path = tmp_path / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (40, 40, 3), np.uint8)).save(path)
    (tmp_path / "work" / "net.py").write_text(NET)
    return tmp_path / "work"


@pytest.fixture
def scan(leakaudit, faces, monkeypatch):
    """Reads all that a scan reads, and ends with ``ENOUGH`` where training would begin."""

    def stop(*_, **__):
        raise UsageError(ENOUGH)

    monkeypatch.setattr(own, "make_judges", stop)
    told = {
        "--encoder": "net.py:make", "--layer": "0", "--images": "faces", "--public": "crowd",
        "--input-size": "32",
    }  # fmt: skip

    def run(*arguments: str):
        given = dict.fromkeys(str(a) for a in arguments)
        rest = [x for flag, value in told.items() if flag not in given for x in (flag, value)]
        return leakaudit("scan", *rest, *arguments)

    return run


def refused(done, told: str) -> None:
    assert done.code == 2, done.said
    assert told.lower() in done.said.lower()
    assert ENOUGH not in done.said and done.out == ""
    assert "This is a bug" not in done.said and "\x1b" not in done.err


def test_what_is_whole_is_read_to_the_end(scan, faces):
    save_safetensors(faces / "w.safetensors", state())
    done = scan("--weights", "w.safetensors")
    assert done.code == 2 and ENOUGH in done.said and "9 of 9 pictures used" in done.said


# Checkpoints


class Runs:
    """A pickle that makes a folder when it is opened."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def saved(path, content) -> None:
    torch.save(content, path)


def cut(path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def truncated_torch(path):
    saved(path, state())
    cut(path)


def truncated_safetensors(path):
    save_safetensors(path, state())
    cut(path, 0.9)


def header_beyond_the_file(path):
    path.write_bytes(struct.pack("<Q", 2**31) + b'{"a":{}}')


def header_not_json(path):
    path.write_bytes(struct.pack("<Q", 8) + b"{nojson}" + b"\0" * 64)


def offsets_that_overlap(path):
    text = b'{"0.weight":{"dtype":"F32","shape":[4],"data_offsets":[0,9999]}}'
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 16)


def with_nan(path):
    bad = state()
    bad["0.weight"][0, 0, 0, 0] = float("nan")
    saved(path, bad)


def archive_without_weights(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")


CHECKPOINTS = {
    "truncated": (truncated_torch, "truncated"),
    "truncated safetensors": (truncated_safetensors, "truncated"),
    "header beyond the file": (header_beyond_the_file, "damaged or truncated"),
    "header that is no JSON": (header_not_json, "damaged or truncated"),
    "offsets beyond the file": (offsets_that_overlap, "damaged or truncated"),
    "empty": (lambda path: path.touch(), "is empty"),
    "a folder": (lambda path: path.mkdir(), "a folder"),
    "not there": (lambda path: None, "no such weights file"),
    "web page": (lambda path: path.write_text("<!DOCTYPE html><h1>404"), "a web page"),
    "LFS pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "git lfs pull",
    ),
    "text": (lambda path: path.write_text("hello"), "neither safetensors nor a torch file"),
    "archive": (archive_without_weights, "an archive without weights"),
    "pickle with code": (
        lambda path: path.write_bytes(pickle.dumps({"w": Runs("ran")})),
        "so it was not opened",
    ),
    "whole network": (lambda path: saved(path, nn.Sequential(nn.Conv2d(3, 4, 4, 4))), "pickle"),
    "NaN": (with_nan, "'0.weight' holds 1 numbers that are NaN"),
    "no tensors": (lambda path: saved(path, {"epoch": 3}), "no named tensors"),
    "a list": (lambda path: saved(path, [torch.zeros(3)]), "no named tensors"),
    "other names": (
        lambda path: saved(path, {f"conv.{n}": t for n, t in state().items()}),
        "missing in the file",
    ),
    "other shapes": (
        lambda path: saved(path, {"0.weight": torch.zeros(9, 3, 4, 4), "0.bias": torch.zeros(9)}),
        "9x3x4x4 in the file, 4x3x4x4 in the network",
    ),
    "half of it": (lambda path: saved(path, {"0.bias": torch.zeros(4)}), "0.weight"),
    "half a prefix": (
        lambda path: saved(path, {"module.0.weight": state()["0.weight"], "0.bias": torch.ones(4)}),
        "missing in the file",
    ),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_broken_checkpoint(scan, faces, case):
    make, told = CHECKPOINTS[case]
    make(faces / "w.pt")
    refused(scan("--weights", "w.pt"), told)
    assert not (faces / "ran").exists()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "backbone.", "module._orig_mod."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "ema"])
def test_prefixes_and_wrappers_of_training_scripts_are_understood(scan, faces, prefix, wrapper):
    named = {prefix + name: tensor for name, tensor in state().items()}
    saved(faces / "w.pt", named if wrapper is None else {"epoch": 1, wrapper: named})
    assert ENOUGH in scan("--weights", "w.pt").said


@pytest.mark.parametrize("which", ["--prior", "--oracle-weights"])
def test_broken_weights_of_other_networks(scan, faces, monkeypatch, which):
    monkeypatch.undo()
    monkeypatch.chdir(faces)
    (faces / "w.pt").write_text("<html>")
    (faces / "judge.py").write_text(NET)
    oracle = ["--oracle", "judge.py:make"]
    if which == "--prior":
        (faces / "judge.py").write_text(
            "from torch import nn\ndef make():\n    return nn.Flatten()\n"
        )
    refused(scan(*oracle, which, "w.pt"), "a web page")


# Pictures


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(path):
    """A PNG of 60,000 x 60,000 pixels in a few bytes."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def noise(seed: int, mode: str = "RGB", side: int = 40) -> Image.Image:
    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(0, 255, (side, side, 3), np.uint8)).convert(mode)


def truncated_picture(path):
    noise(7).save(path, "JPEG", quality=95)
    cut(path)


SKIPPED = {
    "zero bytes": (lambda path: path.touch(), "empty"),
    "text named .jpg": (lambda path: path.write_text("hello"), "not a picture"),
    "web page named .jpg": (lambda path: path.write_text("<html>"), "not a picture"),
    "truncated": (truncated_picture, "truncated"),
    "decompression bomb": (bomb, "million pixels"),
    "one pixel": (lambda path: noise(1, side=1).save(path, "PNG"), "smaller than 8 pixels"),
    "a pickle": (lambda path: path.write_bytes(pickle.dumps(Runs("ran"))), "not a picture"),
}


@pytest.mark.parametrize("case", SKIPPED)
@pytest.mark.parametrize("where", ["faces/a", "crowd"])
def test_a_broken_picture_is_left_out_and_said(scan, faces, case, where):
    make, told = SKIPPED[case]
    make(faces / where / "bad.jpg")
    done = scan()
    assert done.code == 2 and ENOUGH in done.said, done.said
    assert "1 skipped" in done.said and "bad.jpg" in done.said
    assert told in done.said
    assert not (faces / "ran").exists()


def animated(path):
    frames = [noise(k) for k in (1, 2, 3)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


UNUSUAL = {
    "animated GIF": animated,
    "CMYK": lambda path: noise(1, "CMYK").save(path, "JPEG"),
    "grey": lambda path: noise(1, "L").save(path, "PNG"),
    "palette": lambda path: noise(1, "P").save(path, "PNG"),
    "transparent": lambda path: noise(1, "RGBA").save(path, "PNG"),
    "bilevel": lambda path: noise(1, "1").save(path, "PNG"),
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_an_unusual_picture_is_used(scan, faces, case):
    UNUSUAL[case](faces / "faces/a/odd.gif")
    done = scan()
    assert ENOUGH in done.said and "10 of 10 pictures used" in done.said, done.said


def test_a_folder_of_nothing_but_broken_pictures(scan, faces):
    for path in (faces / "faces").rglob("*.png"):
        path.write_bytes(b"x")
    refused(scan(), "None of the 9 pictures can be used")


# Tables


def rows(*lines: str, head: str = "file,person") -> str:
    return "\n".join([head, *lines]) + "\n"


LABELS = {
    "no such file": (None, "can't be read"),
    "empty": ("", "is empty"),
    "missing column": (rows("a/0.png,x", head="file,name"), "no column 'person'"),
    "semicolons": (rows("a/0.png;x", head="file;person"), "separated by commas"),
    "ragged": (rows("a/0.png,x", "a/1.png"), "Line 3 has 1 cells where the header has 2"),
    "doubled": (rows("a/0.png,x", "a/0.png,y"), "name the same file"),
    "unknown file": (rows("a/0.png,x", "gone.png,y"), "not in the"),
    "no person": (rows("a/0.png,"), "names no person"),
    "latin-1": (rows("a/0.png,André").encode("latin-1"), "not UTF-8"),
    "NUL": (b"file,person\na/0.png,x\0\n", "Line 2 holds a NUL"),
    "unfinished quotes": ('file,person\n"a/0.png,x\n', "no valid CSV"),
    "a huge cell": (rows("a/0.png," + "x" * (csv.field_size_limit() + 1)), "CSV"),
}


@pytest.mark.parametrize("case", LABELS)
def test_a_broken_table_of_people(scan, faces, case):
    text, told = LABELS[case]
    if text is not None:
        (faces / "l.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(scan("--labels", "l.csv"), told)


ATTRIBUTES = {
    "no attribute": (rows("a/0.png,a"), "names no attribute"),
    "not binary": (rows("a/0.png,2", head="file,smile"), "holds '2'"),
    "words": (rows("a/0.png,yes", head="file,smile"), "neither 0 nor 1"),
    "infinite": (rows("a/0.png,inf", head="file,smile"), "neither 0 nor 1"),
    "two codes": (rows("a/0.png,-1", "a/1.png,0", head="file,smile"), "holds '0'"),
    "no match": (rows("z.png,1", head="file,smile"), "No row of the attributes fits"),
    "column twice": (rows("a/0.png,1,1", head="file,smile,smile"), "stands twice"),
}


@pytest.mark.parametrize("case", ATTRIBUTES)
def test_a_broken_table_of_attributes(scan, faces, case):
    text, told = ATTRIBUTES[case]
    (faces / "t.csv").write_text(text)
    refused(scan("--attributes", "t.csv"), told)


def test_a_mark_of_byte_order_is_no_fault(scan, faces):
    table = "\ufefffile,person\r\n" + "".join(
        f"{who}/{k}.png,{who}\r\n" for who in "abc" for k in range(3)
    )
    (faces / "l.csv").write_text(table, encoding="utf-8")
    assert ENOUGH in scan("--labels", "l.csv").said


# Presets, options, policies


PRESETS = {
    "no TOML": ("[attacks", "not valid TOML"),
    "not UTF-8": (b"\xff\xfe", "can't be read"),
    "NUL": (b"[attacks]\0", "not valid TOML"),
    "unknown table": ("[atacks.linkage]\n", "Did you mean attacks"),
    "unknown attack": ("[attacks.linkge]\n", "Did you mean linkage"),
    "unknown key": ("[attacks.linkage]\npair = 3\n", "Did you mean pairs"),
    "wrong type": ("[attacks.blackbox-decoder]\ntraining.steps = 'many'\n", "not of type int"),
    "negative": ("[attacks.blackbox-decoder]\ntraining.steps = -5\n", "steps"),
    "a number for a table": ("[attacks]\nlinkage = 3\n", "must be a table"),
    "unknown training": ("[training]\npriors.steps = 3\n", "Did you mean prior"),
    "negative training": ("[training]\nprior.steps = -3\n", "steps"),
    "nothing to run": ("[attacks]\n", "No attack is left"),
    "unknown defence": (
        "[attacks.blackbox-decoder]\n[defences.craftr]\nbeta = 1\n",
        "Did you mean crafter",
    ),
}


@pytest.mark.parametrize("case", PRESETS)
def test_a_broken_preset(leakaudit, faces, case):
    text, told = PRESETS[case]
    path = faces / "p.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if case.endswith("training"):
        done = leakaudit(
            "scan", "--encoder", "net.py:make", "--layer", "0", "--images", "faces", "--public",
            "crowd", "--preset", path,
        )  # fmt: skip
    else:
        done = leakaudit("scan", "--demo", "--preset", path, "--defence", "none")
    refused(done, told)


OPTIONS = [
    (["--crop", "1,2,3"], "Four whole numbers"),
    (["--crop", "9,9,3,3"], "holds no pixels"),
    (["--mean", "0.5"], "Three numbers by commas"),
    (["--mean", "a,b,c"], "Three numbers by commas"),
    (["--mean", "nan,0,0"], "finite"),
    (["--std", "0,1,1"], "above zero"),
    (["--std", "inf,1,1"], "finite"),
    (["--channels", "rbg"], "Did you mean"),
    (["--layer", "conv9"], "Unknown layer 'conv9'"),
    (["--layer", "1.5"], "layer"),
    (["--layer", ""], "layer"),
    (["--input-size", "33"], "multiple of 16"),
    (["--input-size", "0"], "input-size"),
    (["--encoder", "gone.py:make"], "no such Python file"),
    (["--encoder", "net.py:mak"], "Did you mean make"),
    (["--encoder", "torchvision:resnet81"], "Did you mean resnet18"),
    (["--encoder", "net.pt"], "holds weights, not a network"),
    (["--encoder", "\x1b[2Jnet"], "doesn't name a network"),
    (["--images", "gone"], "no such folder"),
    (["--public", "net.py"], "a file, not a folder"),
    (["--public", "faces"], "overlap"),
    (["--images", "gone", "--public", "gone"], "There is no such folder (gone)"),
    (["--public", "faces/gone"], "There is no such folder (faces/gone)"),
    (["--images", "crowd/gone"], "There is no such folder (crowd/gone)"),
    (["--attacked-pictures", "9"], "Nobody has the 10 pictures"),
    (["--fail-on", "identification"], "gate can't be read"),
    (["--fail-on", "identification>1e999"], "not a number"),
    (["--oracle", "facenet:vggface3"], "Did you mean vggface2"),
    (["--oracle", "trained", "--oracle", "trained"], "named twice"),
    (["--oracle-weights", "w.pt"], "1 weights files for 0 judges"),
    (["--oracle-mean", "1,2"], "Three numbers by commas"),
    (["--oracle-mean", "0.5,0.5,0.5"], "No judge takes a preprocessing"),
]


@pytest.mark.parametrize(("arguments", "told"), OPTIONS)
def test_a_broken_option(scan, faces, monkeypatch, arguments, told):
    if any(argument.startswith("--oracle") for argument in arguments):
        monkeypatch.undo()  # these are read by what the fixture stops
        monkeypatch.chdir(faces)
        monkeypatch.setenv("LEAKAUDIT_CACHE", str(faces / "cache"))
    refused(scan(*arguments), told)


POLICIES = {
    "no TOML": ("[[gate", "policy"),
    "unknown key": ("[[gate]]\nexpr = 'identification>0.2'\nseverty = 'warn'\n", "severity"),
    "bad gate": ("[[gate]]\nexpr = 'identification'\n", "can't be read"),
}


@pytest.mark.parametrize("case", POLICIES)
def test_a_broken_policy(scan, faces, case):
    text, told = POLICIES[case]
    (faces / "p.toml").write_text(text)
    refused(scan("--policy", "p.toml"), told)
