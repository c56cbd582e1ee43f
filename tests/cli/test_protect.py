"""``leakaudit protect``: what it writes, what it refuses, what it says, and its exit codes."""

import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from audit.edges import QUICK, write_networks, write_pictures
from audit.toy_subject import toy_preset
from report.sample import tuned_result

import leakaudit.cli.protect  # noqa: F401 - the command registers itself
from leakaudit.audit import verify
from leakaudit.audit.shards import read_shard
from leakaudit.audit.sources import FolderSource
from leakaudit.core.keys import key_id, read_key
from leakaudit.models.pictures import UnusableError
from leakaudit.models.weights import save_safetensors, sha256_of
from leakaudit.report.json import write_result


@pytest.fixture
def protect(leakaudit, tmp_path):
    """Protects six pictures by a small encoder of the user's own."""
    encoder, prior = write_networks(tmp_path)
    if not (tmp_path / "pictures").exists():
        write_pictures(tmp_path / "pictures", 6)

    def run(*more: str, out: str = "out", drop: tuple[str, ...] = (), **instead):
        given = {
            "--encoder": encoder, "--layer": "last", "--images": tmp_path / "pictures",
            "--prior": prior, "--input-size": 32, "--defence": QUICK, "--beta": 2,
            "--out": tmp_path / out, "--seed": 3,
        }  # fmt: skip
        given |= {f"--{name}": value for name, value in instead.items()}
        words = [str(w) for k, v in given.items() if k not in drop for w in (k, v)]
        return leakaudit("protect", *words, *more)

    return run


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def stored(folder: Path) -> torch.Tensor:
    manifest = manifest_of(folder)
    kind = manifest["made_with"]["format"]
    return torch.cat([read_shard(kind, folder / s["file"])[0] for s in manifest["shards"]])


def test_a_folder_is_protected_and_a_second_call_finds_it_done(protect, tmp_path):
    answer = protect()
    assert answer.code == 0, answer.err
    assert answer.out == ""
    assert "no secret" not in answer.said
    assert "Warning: The draws come from a seed" in answer.said
    manifest = manifest_of(tmp_path / "out")
    assert manifest["complete"]
    assert manifest["rows"] + len(manifest["failures"]) == 6
    again = protect()
    assert again.code == 0
    assert "1 of 1 shards are there already" in again.said


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_the_formats_hold_the_same_features(protect, tmp_path, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    assert protect().code == 0
    assert protect(out="other", format=kind).code == 0
    assert torch.equal(stored(tmp_path / "out"), stored(tmp_path / "other"))


def test_no_key_is_made_for_a_defence_that_is_none(protect, tmp_path):
    answer = protect("--key", str(tmp_path / "s.key"), drop=("--seed", "--beta"), defence="gausian")
    assert answer.code == 2
    assert "gaussian" in answer.said
    assert not (tmp_path / "s.key").exists()


def test_a_key_is_made_once_private_and_never_told(protect, tmp_path):
    key = tmp_path / "secret.key"
    answer = protect("--key", str(key), drop=("--seed",))
    assert answer.code == 0, answer.err
    assert "A secret key was made" in answer.said
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    secret = read_key(key)
    assert manifest_of(tmp_path / "out")["made_with"]["key_id"] == key_id(secret)
    text = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert secret.hex().encode() not in text
    assert secret not in text
    assert "A secret key was made" not in protect("--key", str(key), drop=("--seed",)).said
    other = protect("--key", str(tmp_path / "two.key"), drop=("--seed",))
    assert other.code == 2
    assert "key_id was" in other.said


def test_a_key_that_others_can_read_is_refused(protect, tmp_path):
    key = tmp_path / "secret.key"
    assert protect("--key", str(key), drop=("--seed",), out="a").code == 0
    os.chmod(key, 0o640)
    answer = protect("--key", str(key), drop=("--seed",), out="b")
    assert answer.code == 2
    assert "chmod 600" in answer.said


def test_a_key_among_what_is_released_is_refused(protect, tmp_path):
    answer = protect("--key", str(tmp_path / "out" / "k"), drop=("--seed",))
    assert answer.code == 2
    assert "among what is released" in answer.said
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_key_is_refused(protect, tmp_path):
    (tmp_path / "k").write_text("hello")
    os.chmod(tmp_path / "k", 0o600)
    answer = protect("--key", str(tmp_path / "k"), drop=("--seed",))
    assert answer.code == 2
    assert "not a leakaudit key" in answer.said


def test_without_key_and_seed_nothing_is_released(protect):
    answer = protect(drop=("--seed",))
    assert answer.code == 2
    assert "--key FILE" in answer.said


def test_the_docs_find_whose_rows_are_whose(protect, tmp_path, monkeypatch):
    assert protect("--key", str(tmp_path / "release.key"), drop=("--seed",)).code == 0
    text = (Path(__file__).resolve().parents[2] / "docs" / "protect.md").read_text("utf-8")
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "pseudonym" in c]
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(compile(code, "docs/protect.md", "exec"), found)
    assert torch.equal(found["features"], stored(tmp_path / "out"))
    there = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert set(found["rows"]) == there - {
        failure["name"] for failure in manifest_of(tmp_path / "out")["failures"]
    }
    assert (
        protect(
            "--key", str(tmp_path / "release.key"), "--keep-names", out="kept", drop=("--seed",)
        ).code
        == 0
    )
    kept, names = read_shard(
        "safetensors", tmp_path / "kept" / manifest_of(tmp_path / "kept")["shards"][0]["file"]
    )
    order = [found["rows"].index(name) for name in names]
    assert torch.equal(found["features"][order], kept)


def test_names_are_pseudonyms_unless_kept(protect, tmp_path):
    assert protect().code == 0
    assert protect("--keep-names", out="kept").code == 0
    everything = {
        name: b"".join(p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file())
        for name in ("out", "kept")
    }
    assert b"0003.png" not in everything["out"]
    assert b"0003.png" in everything["kept"]


def test_pictures_that_cannot_be_read_are_listed(protect, tmp_path):
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "pictures" / "x.heic").write_bytes(b"heic")
    answer = protect("--keep-names")
    assert answer.code == 0
    assert "1 files skipped" in answer.said
    reasons = {f["name"]: f["reason"] for f in manifest_of(tmp_path / "out")["failures"]}
    assert "not a picture" in reasons["broken.png"]
    assert ".heic" in reasons["x.heic"]


@pytest.mark.parametrize(
    ("instead", "told"),
    [
        ({"beta": "auto"}, "tuned on labelled faces"),
        ({"beta": "auto", "tuned": "nowhere.json"}, "nowhere.json"),
        ({"tuned": "nowhere.json"}, "--tuned is for --beta auto"),
        ({"beta": "-1"}, "no number from 0"),
        ({"beta": "x"}, "no number from 0"),
        ({"defence": "crafter:beta=3"}, "beta is said twice"),
        ({"defence": "crafter:alphabeta=3"}, "setting 'alphabeta'"),
        ({"defence": "nowhere.py:hide"}, "nowhere.py"),
        ({"defence": "none", "beta": "1"}, "takes no settings"),
        ({"defence": "gaussian"}, "setting 'beta'"),
        ({"defence": "craftr"}, "Did you mean crafter"),
        ({"shard": "3/2"}, "no part of a whole"),
        ({"shard": "x"}, "is not I/N"),
        ({"shard": f"1/{'9' * 5000}"}, "is not I/N"),
        ({"format": "npx"}, "Did you mean npz"),
        ({"images": "nowhere"}, "no such folder"),
        ({"prior": "nowhere"}, "no such weights file"),
        ({"input-size": "64"}, "makes pictures of 32 pixels"),
        ({"input-size": "48"}, "makes pictures of 32 pixels"),
        ({"input-size": "33"}, "multiple of 16"),
        ({"device": "mps"}, "run on cpu, cuda or cuda:N"),
        ({"batch-size": "0"}, "whole number from 1"),
        ({"align": "mtcn"}, "no way of aligning"),
        ({"align": "mtcnn", "crop": "0,0,9,9"}, "--crop and --align"),
        ({"public-crop": "0,0,9"}, "Four whole numbers"),
        ({"fail-on": "identification>0.5"}, "--fail-on needs --verify"),
        ({"fail-on": "identification", "verify": "3"}, "can't be read"),
        ({"public-crop": "0,0,9,9"}, "--public-crop needs --public"),
    ],
)
def test_wrong_input_is_said(protect, instead, told, tmp_path):
    answer = protect(**instead)
    assert answer.code == 2
    assert told in answer.said
    assert not (tmp_path / "out").exists()


GENERATOR = """
import torch
from torch import nn

class Own(nn.Module):
    latent = 5
    def __init__(self):
        super().__init__()
        self.lift = nn.Linear(5, 3 * 8 * 8)
    def forward(self, z):
        x = torch.sigmoid(self.lift(z)).view(-1, 3, 8, 8)
        return nn.functional.interpolate(x, scale_factor=4.0)
"""


def test_a_generator_of_the_users_own_protects_as_the_prior(protect, tmp_path):
    (tmp_path / "gan.py").write_text(GENERATOR)
    for seed in (0, 1):
        draw = torch.Generator().manual_seed(seed)
        state = {"lift.weight": torch.randn(192, 5, generator=draw), "lift.bias": torch.zeros(192)}
        save_safetensors(tmp_path / f"gan{seed}.safetensors", state)
    spec = f"{tmp_path / 'gan.py'}:Own"
    for seed in (0, 1):
        answer = protect(
            prior=spec, **{"prior-weights": tmp_path / f"gan{seed}.safetensors"}, out=f"own{seed}"
        )
        assert answer.code == 0, answer.err
    told = [manifest_of(tmp_path / f"own{seed}")["made_with"] for seed in (0, 1)]
    hashes = [sha256_of(tmp_path / f"gan{seed}.safetensors") for seed in (0, 1)]
    assert [one["prior_sha256"] for one in told] == hashes
    assert {one["prior_code_sha256"] for one in told} == {sha256_of(tmp_path / "gan.py")}
    assert not torch.equal(stored(tmp_path / "own0"), stored(tmp_path / "own1"))
    (tmp_path / "gan.py").write_text(GENERATOR.replace("sigmoid(", "sigmoid(0.9 * "))
    again = protect(prior=spec, **{"prior-weights": tmp_path / "gan0.safetensors"}, out="own0")
    assert again.code == 2  # other code: another release, which doesn't go into the same folder
    assert "prior_code_sha256" in again.said


def test_a_prior_of_a_file_takes_no_weights(protect, tmp_path):
    answer = protect(**{"prior-weights": tmp_path / "prior.safetensors"})
    assert answer.code == 2
    assert "--prior-weights belongs to a generator of your own" in answer.said


def _result_of_a_search(tmp_path, protect, *, elsewhere=None, settings=None, **changes):
    """A result.json in which a search chose beta 3 for the crafter of these tests."""
    assert protect(out="before").code == 0
    made_with = manifest_of(tmp_path / "before")["made_with"]
    told = {**made_with, **made_with["encoder"]}
    names = ("weights_sha256", "layer", "preprocessing", "input_size", "prior_sha256", "align")
    place = {**{name: told[name] for name in names}, **(elsewhere or {})}
    label = f"{QUICK},beta=3"
    had = {**made_with["defence"]["settings"], "beta": 3.0, "batch": 16, **(settings or {})}
    base = replace(tuned_result(), subject=place)
    base = replace(base, plan={**base.plan, "defences": {**base.plan["defences"], label: had}})
    changes = {"label": label, **changes}
    tuning = replace(base.tuning[0], spec=f"{QUICK},beta=auto", **changes)
    return write_result(replace(base, tuning=(tuning,)), tmp_path / "tuned.json")


def test_the_beta_of_a_search_is_taken(protect, tmp_path):
    found = _result_of_a_search(tmp_path, protect)
    answer = protect("--tuned", str(found), beta="auto", drop=("--defence",))
    assert answer.code == 0, answer.err
    assert manifest_of(tmp_path / "out")["made_with"]["defence"]["label"].endswith("beta=3")
    assert "had no say" in answer.said  # its worst case had static attacks alone


def test_a_beta_of_static_attacks_alone_is_told(protect, tmp_path):
    targets = ("worst-static.identification_excess<=0.1",)
    found = _result_of_a_search(tmp_path, protect, targets=targets)
    answer = protect("--tuned", str(found), beta="auto", drop=("--defence",))
    assert answer.code == 0, answer.err
    assert "adversaries who study the defence had no say" in answer.said
    assert targets[0] in answer.said


@pytest.mark.parametrize(
    "status, told", [("missed", "ended without a setting"), ("undecided", "doubts bear on")]
)
def test_a_search_that_found_nothing_is_no_setting(protect, tmp_path, status, told):
    found = _result_of_a_search(tmp_path, protect, status=status)
    answer = protect("--tuned", str(found), beta="auto")
    assert answer.code == 2
    assert told in answer.said


@pytest.mark.parametrize(
    "elsewhere, told",
    [
        ({"layer": "layer3"}, "tuned on another layer"),
        ({"prior_sha256": "0" * 64}, "tuned on another prior"),
        ({"preprocessing": {"input_size": 32}}, "tuned on another preprocessing"),
        ({"input_size": 128}, "tuned on pictures of another size"),
        ({"align": "mtcnn"}, "tuned on faces aligned in another way"),
        ({"crop": "0,0,9,9"}, "tuned on faces cut by another --crop"),
    ],
)
def test_a_beta_of_another_place_is_refused(protect, tmp_path, elsewhere, told):
    found = _result_of_a_search(tmp_path, protect, elsewhere=elsewhere)
    answer = protect("--tuned", str(found), beta="auto", drop=("--defence",))
    assert answer.code == 2
    assert told in answer.said
    assert not (tmp_path / "out").exists()


def test_public_pictures_are_cut_as_asked(protect, tmp_path):
    """They go into a release, so that another crop of them is another release."""
    write_pictures(tmp_path / "public", 8)
    public = ("--public", str(tmp_path / "public"))
    assert protect(*public, out="whole").code == 0
    done = protect(*public, "--public-crop", "2,2,18,18", out="cut")
    assert done.code == 0, done.said
    whole, cut = (manifest_of(tmp_path / name)["made_with"] for name in ("whole", "cut"))
    assert cut["public_crop"] == "2,2,18,18" and "public_crop" not in whole
    assert not torch.equal(stored(tmp_path / "whole"), stored(tmp_path / "cut"))
    other = protect(*public, out="cut")
    assert other.code == 2 and "public" in other.said


def test_a_beta_of_other_settings_is_refused(protect, tmp_path):
    """Another preset, or another release's defaults, behind the same name."""
    found = _result_of_a_search(tmp_path, protect, settings={"start_steps": 7})
    answer = protect("--tuned", str(found), beta="auto", drop=("--defence",))
    assert answer.code == 2
    assert "start_steps was 7, and here it is 2" in answer.said
    assert not (tmp_path / "out").exists()


def test_a_setting_that_was_not_believed_is_none(protect, tmp_path):
    found = _result_of_a_search(
        tmp_path, protect, status="undecided", chosen=None, label=None, reason="it was luck"
    )
    answer = protect("--tuned", str(found), beta="auto", drop=("--defence",))
    assert answer.code == 2
    assert "without a setting to rely on: it was luck" in answer.said


def test_pictures_are_cut_after_the_face_where_that_is_asked_for(tmp_path):
    class Left:
        """Finds the face in the left half of every picture but the second."""

        def cut(self, picture, size):
            self.seen = getattr(self, "seen", 0) + 1
            if self.seen == 2:
                raise UnusableError("without a face")
            half = picture.crop((0, 0, picture.width // 2, picture.height))
            return half.resize((size, size)), 0.0

    write_pictures(tmp_path / "pictures", 2)
    plain = FolderSource(tmp_path / "pictures", size=32)
    aligned = FolderSource(tmp_path / "pictures", size=32, align=Left())
    first, second = plain.names
    assert not torch.equal(plain.read(first), aligned.read(first))
    with pytest.raises(UnusableError, match="without a face"):
        aligned.read(second)


def test_no_defence_is_not_exported(protect):
    answer = protect(defence="none", drop=("--beta",))
    assert answer.code == 2
    assert "undefended features are never written" in answer.said


@pytest.mark.parametrize("name", ["--encoder", "--layer", "--images", "--prior", "--out"])
def test_what_is_missing_is_named(protect, name):
    answer = protect(drop=(name,))
    assert answer.code == 2
    assert f"{name} missing" in answer.said


def test_originals_and_features_are_not_mixed(protect, tmp_path):
    answer = protect(out="pictures/out")
    assert answer.code == 2
    assert "overlap" in answer.said


def test_another_encoder_in_the_same_folder_is_refused(protect, tmp_path):
    assert protect().code == 0
    code = tmp_path / "small.py"
    code.write_text(code.read_text().replace("manual_seed(1)", "manual_seed(7)"))
    answer = protect()
    assert answer.code == 2
    assert "encoder.code_sha256 was" in answer.said
    assert "encoder.weights_sha256 was" in answer.said


def test_a_new_picture_in_the_same_folder_is_refused(protect, tmp_path):
    assert protect().code == 0
    write_pictures(tmp_path / "pictures", 7)
    answer = protect()
    assert answer.code == 2
    assert "pictures.count was 6 and is 7" in answer.said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_a_failure_of_the_run(protect, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    answer = protect(out="locked/out")
    assert answer.code == 4
    assert "can't be used" in answer.said


def test_a_file_in_the_folders_place_is_said(protect, tmp_path):
    (tmp_path / "out").write_text("")
    answer = protect()
    assert answer.code == 2
    assert "This is a file, and a folder is needed" in answer.said
    assert "deploying" not in answer.said


def test_a_folder_of_other_things_is_said_before_any_work(protect, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("")
    answer = protect()
    assert answer.code == 2
    assert "The folder holds other files" in answer.said
    assert "deploying" not in answer.said


def test_a_folder_for_a_key_is_said(protect, tmp_path):
    answer = protect("--key", str(tmp_path), drop=("--seed",))
    assert answer.code == 2
    assert "a key is a file" in answer.said


def test_the_parts_of_two_calls_are_the_whole(protect, tmp_path):
    assert protect("--shard-size", "2", out="whole").code == 0
    first = protect("--shard-size", "2", "--shard", "1/2")
    assert "Not complete yet" in first.said
    assert "Not complete yet" not in protect("--shard-size", "2", "--shard", "2/2").said
    for path in (tmp_path / "whole").rglob("*"):
        if path.is_file():
            twin = tmp_path / "out" / path.relative_to(tmp_path / "whole")
            assert twin.read_bytes() == path.read_bytes()


def test_an_interruption_says_how_to_go_on(protect, monkeypatch):
    from leakaudit.audit import export

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(export._Job, "make", interrupted)
    answer = protect()
    assert answer.code == 130
    assert "the same command goes on" in answer.said


# -- the demo and verification -------------------------------------------------------------------


def test_the_demo_is_protected_and_what_was_written_is_attacked(leakaudit, tmp_path):
    fixed = ("--demo", "--defence", QUICK, "--beta", "2", "--out", str(tmp_path / "out"))
    preset = toy_preset(tmp_path, steps=6)
    answer = leakaudit("protect", *fixed, "--verify", "8", "--preset", preset)
    assert answer.code == 0, answer.err
    assert "8 stored features, read back from 1 shard:" in answer.out
    assert "Named by static attacks, at worst" in answer.out
    assert "control-prior" in answer.out
    assert "Can't tell: Static attacks only" in answer.out
    assert manifest_of(tmp_path / "out")["made_with"]["seed"] == 0
    verify_ = (*fixed, "--verify", "8", "--preset", preset, "--fail-on")
    gated = leakaudit("protect", *verify_, "none.worst-static.identification>0.05")
    assert gated.code == 1, gated.said
    assert "gate fail: none.worst-static.identification>0.05 - " in gated.out
    open_ = leakaudit("protect", *verify_, "worst.psnr>90")
    assert open_.code == 3 and "static-only" in open_.out, open_.said


def test_the_demo_takes_no_encoder(leakaudit, tmp_path):
    answer = leakaudit(
        "protect", "--demo", "--encoder", "x.py:make", "--beta", "1", "--out", str(tmp_path / "o")
    )
    assert answer.code == 2
    assert "--demo brings its own encoder" in answer.said


def test_without_people_verification_measures_likeness(protect, tmp_path):
    answer = protect("--verify", "5", "--preset", toy_preset(tmp_path, steps=6))
    assert answer.code == 0, answer.err
    assert "all finite" in answer.out
    assert "SSIM of whitebox-latent: undefended" in answer.out
    assert "Nobody knows who is on the pictures" in answer.out
    gate = ("--fail-on", "worst-static.identification>0.5")
    answer = protect("--verify", "5", "--preset", toy_preset(tmp_path, steps=6), *gate)
    assert answer.code == 3 and "gate inconclusive: " in answer.out, answer.said


def test_so_few_pictures_name_nobody_and_a_gate_on_them_is_refused_before_any_work(
    protect, tmp_path
):
    preset = ("--preset", toy_preset(tmp_path, steps=6))
    gated = protect("--verify", "4", *preset, "--fail-on", "worst-static.identification>0.5")
    assert gated.code == 2 and "--verify 5 or more" in gated.said
    assert not (tmp_path / "out").exists()
    answer = protect("--verify", "4", *preset)
    assert answer.code == 0, answer.err
    assert "So few pictures name nobody (--verify 5 or more may)" in answer.out


def test_verification_finds_features_that_were_tampered_with(protect, tmp_path):
    from safetensors.torch import load_file

    from leakaudit.audit.shards import shard_bytes

    assert protect().code == 0
    shard = next((tmp_path / "out").glob("shard-*"))
    features = load_file(shard)["features"]
    names = read_shard("safetensors", shard)[1]
    features[0] = float("nan")
    data = shard_bytes("safetensors", features, names)
    shard.write_bytes(data)
    import hashlib

    for path in (tmp_path / "out" / "manifest.json", *(tmp_path / "out" / "records").iterdir()):
        old = manifest_of(tmp_path / "out")["shards"][0]["sha256"]
        path.write_text(path.read_text().replace(old, hashlib.sha256(data).hexdigest()))
        break
    record = next((tmp_path / "out" / "records").iterdir())
    told = json.loads(record.read_text())
    record.write_text(json.dumps({**told, "sha256": hashlib.sha256(data).hexdigest()}))
    answer = protect("--verify", "6")
    assert answer.code == 4
    assert "NaN or infinite" in answer.said


@pytest.mark.slow
def test_with_people_verification_names_them_by_a_judge_of_the_presets_training(
    protect, tmp_path, monkeypatch
):
    import shutil

    asked, make = [], verify.make_judges

    def judges(*given, training, **more):
        asked.append(training)
        return make(*given, training=training, **more)

    monkeypatch.setattr(verify, "make_judges", judges)
    shutil.rmtree(tmp_path / "pictures")
    write_pictures(tmp_path / "pictures", 24, per_person=4)
    preset = Path(toy_preset(tmp_path, steps=6))
    few = "[training]\noracle.steps = 60\noracle.batch = 16\n"
    preset.write_text(preset.read_text(encoding="utf-8") + few, encoding="utf-8")
    answer = protect("--verify", "6", "--preset", str(preset))
    assert answer.code == 0, answer.err
    assert "Named by static attacks, at worst" in answer.out
    assert "In serious doubt (too-few): " in answer.out
    assert "static-only" not in answer.out
    assert (asked[0].steps, asked[0].batch) == (60, 16)


def test_the_call_from_python_writes_what_the_command_writes(protect, tmp_path):
    import leakaudit

    assert protect().code == 0
    encoder, prior = write_networks(tmp_path)
    made = leakaudit.protect(
        tmp_path / "pictures", tmp_path / "called", encoder=str(encoder), layer="last", prior=prior,
        size=32, defence=f"{QUICK},beta=2", seed=3,
    )  # fmt: skip
    assert made["complete"] and made["shards"] == manifest_of(tmp_path / "out")["shards"]
    assert torch.equal(stored(tmp_path / "called"), stored(tmp_path / "out"))
    with pytest.raises(leakaudit.core.errors.UsageError, match="overlap"):
        leakaudit.protect(tmp_path, tmp_path / "x", encoder="e", layer="l", prior=prior, seed=3)
