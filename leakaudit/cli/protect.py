"""``leakaudit protect``: protected features of a folder of pictures, on disk."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from leakaudit.cli import options as opt
from leakaudit.cli.app import app
from leakaudit.core.counted import counted
from leakaudit.core.errors import UsageError

if TYPE_CHECKING:
    from leakaudit.audit.recipe import Kit
    from leakaudit.audit.sources import Source
    from leakaudit.cli.progress import Reporter
    from leakaudit.core.types import Result
    from leakaudit.models.devices import Device
    from leakaudit.models.subject import Subject


@app.command("protect")
def protect_command(
    demo: opt.Demo = False,
    encoder: opt.EncoderSpec = None,
    weights: opt.Weights = None,
    layer: opt.LayerName = None,
    trust_encoder: opt.TrustEncoder = False,
    images: Annotated[Path | None, opt.option("--images", "Pictures, in any layout.")] = None,
    public: Annotated[
        Path | None,
        opt.option("--public", "Public pictures for the defence; else faces of the prior."),
    ] = None,
    prior: opt.PriorSpec = None,
    prior_weights: opt.PriorWeights = None,
    size: opt.InputSize = 64,
    crop: opt.Crop = None,
    public_crop: opt.PublicCrop = None,
    align: opt.Align = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    channels: opt.ChannelOrder = None,
    beta: Annotated[
        str | None,
        opt.option(
            "--beta", "Larger is more private; scan tells what it gives.", metavar="NUMBER|auto"
        ),
    ] = None,
    tuned: Annotated[
        Path | None,
        opt.option("--tuned", "The result.json of leakaudit tune, for --beta auto."),
    ] = None,
    defence: Annotated[
        str | None,
        opt.option("--defence", "crafter (default) or another, as in scan.", metavar="SPEC"),
    ] = None,
    out: Annotated[Path | None, opt.option("--out", "The folder to write to (private).")] = None,
    output_format: Annotated[
        str, opt.option("--format", "safetensors, parquet or npz.")
    ] = "safetensors",
    shard: Annotated[
        str, opt.option("--shard", "This process's part of the files.", metavar="I/N")
    ] = "1/1",
    shard_size: Annotated[int, opt.option("--shard-size", "Pictures a file.", min=1)] = 128,
    key: Annotated[
        Path | None, opt.option("--key", "The secret key's file; made where there is none.")
    ] = None,
    seed: Annotated[
        int | None,
        opt.option(
            "--seed",
            "Draws for demonstrations and tests, no secret.",
            variable="LEAKAUDIT_PROTECT_SEED",  # a scan's seed must not stand for the secret key
        ),
    ] = None,
    keep_names: Annotated[
        bool, opt.option("--keep-names", "Rows carry file names, not pseudonyms.")
    ] = False,
    verify: Annotated[
        int, opt.option("--verify", "Attack so many of the written faces.", min=0)
    ] = 0,
    fail_on: Annotated[
        list[str] | None,
        opt.option(
            "--fail-on",
            'A gate on what --verify finds, such as "worst-static.identification>0.2"; repeatable.',
            metavar="EXPR",
            variable="LEAKAUDIT_PROTECT_FAIL_ON",  # a scan's reads rows that aren't there here
        ),
    ] = None,
    batch_size: Annotated[
        str,
        opt.option(
            "--batch-size",
            "Rows of a fixed block (auto: 16); another is another release.",
            metavar="auto|N",
            variable="LEAKAUDIT_PROTECT_BATCH_SIZE",  # a scan's changes no score; this a release
        ),
    ] = "auto",
    preset: opt.Preset = "quick",
    demo_people: opt.DemoPeople = 0,
    device: opt.Device = "auto",
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
) -> int:
    """Write protected features of pictures: sharded, atomic, resumable, with a manifest.

    The same call again goes on where an interrupted one stopped. Exit codes: 0 written, 1 a gate is
    breached, 2 wrong input or another folder's work, 3 a gate is undecided, 4 run-time failure, 130
    interrupted.
    """
    from leakaudit.audit.edge import BLOCK
    from leakaudit.audit.export import ExportOptions, export, parts_of
    from leakaudit.audit.out_folder import OutFolder
    from leakaudit.audit.protector import refuse_overlap
    from leakaudit.audit.tuned import search_of, spec_of, untried
    from leakaudit.cli.progress import Reporter
    from leakaudit.cli.subjects import batch_of
    from leakaudit.core.cache import no_network
    from leakaudit.models.devices import device_of, full_precision

    where, block = device_of(device), batch_of(batch_size) or BLOCK
    if out is None:
        raise UsageError("--out missing", todo="Name the folder to write to")
    OutFolder(out).refuse_others()
    gates = _gates(fail_on or (), verify)
    ours = demo or encoder == "demo"
    search = None
    if tuned is not None or (beta or "").strip() == "auto":
        search = _search(defence, beta, tuned, preset=preset, demo=ours, quiet=quiet)
        spec = spec_of(search, defence)
    else:
        spec = defence_spec(defence, beta)
    chosen = ExportOptions(output_format, parts_of(shard), shard_size, keep_names)
    asked: dict[str, Any] = {
        "encoder": encoder, "weights": weights, "layer": layer, "images": images, "public": public,
        "prior": prior, "prior_weights": prior_weights, "crop": crop,
        "public_crop": public_crop, "align": align,
        "mean": mean, "std": std, "channels": channels,
    }  # fmt: skip
    key_, seed_ = _draws(key, seed, out, demo=ours)
    with (
        no_network(offline),
        full_precision(where),
        warnings.catch_warnings(),
        Reporter(quiet=quiet, to_stdout=True) as say,
        contextlib.redirect_stdout(sys.stderr),  # what a user's factory prints is no result
        _how_to_go_on(say),
    ):
        warnings.simplefilter("ignore")
        if ours:
            told = {**asked, "size": size, "trust": trust_encoder}
            kit, source, subject = _demo(
                {**told, "encoder": encoder if demo else None}, spec, preset, key_, seed_,
                block, demo_people, say, where,
            )  # fmt: skip
        else:
            refuse_overlap(images, out)
            recipe = {
                **{name: value for name, value in asked.items() if name != "images"},
                "trust": trust_encoder, "defence": spec, "preset": preset, "key": key_,
                "seed": seed_, "size": size, "block": block,
                "device": str(where),
            }  # fmt: skip
            kit, source, subject = *_own(asked, recipe, say), None
        if search is not None:
            _refuse_other_place(kit, search, tuned)
            _refuse_other_settings(kit, search, defence, tuned)
            if remark := untried(search, search_of(search, defence)):
                say.warn(remark)
            if subject is None and public is None and not kit.edge.defence.uses_prior:
                say.warn(
                    "the search measured how far features reach on its public pictures, and here "
                    "faces of the prior stand in for them, so that the same setting may be another "
                    "amount of noise: say the search's --public here too"
                )
        _say_start(kit, source, seed_, say)
        manifest = export(kit, source, out, chosen, progress=say.progress, note=say.line)
        found = None
        if verify:
            found = _verified(kit, source, out, verify, subject, crop, preset, gates, say)
    say.done()
    _say_end(manifest, out, say)
    if found is None:
        return 0
    _say_found(found, say)
    return int(found.verdict.exit_code)


def _gates(asked: Sequence[str], verify: int) -> tuple[str, ...]:
    """The gates on a verification, read before any work."""
    from leakaudit.audit.gates import parse_gate
    from leakaudit.audit.verify import FEWEST_PEOPLE
    from leakaudit.cli.variables import refuse_empty

    refuse_empty("LEAKAUDIT_PROTECT_FAIL_ON", asked)
    for expr in asked:
        parse_gate(expr)
    if asked and 0 < verify < FEWEST_PEOPLE:
        raise UsageError(
            f"--fail-on needs --verify {FEWEST_PEOPLE} or more: fewer faces decide nothing",
            todo="Say --verify 32, or more for narrower intervals",
        )
    if asked and not verify:
        raise UsageError(
            "--fail-on needs --verify: nothing else is attacked",
            todo="Say --verify 32, or gate a scan of this defence",
        )
    return tuple(asked)


def defence_spec(defence: str | None, beta: str | None) -> str:
    """The specification of the defence; ``--beta`` sets that of ``--defence``, or of crafter."""
    spec = (defence or "crafter").strip()
    if beta is None:
        if defence is None:
            raise UsageError(
                "--beta missing", todo="Say how much privacy, such as --beta 2; scan measures it"
            )
        return spec
    if re.search(r"[:,]\s*beta\s*=", spec):
        raise UsageError("beta is said twice", where=f"--beta {beta}, --defence {spec}")
    from leakaudit.audit.knobs import with_setting

    return with_setting(spec, "beta", f"{beta_of(beta):g}")


def _search(
    defence: str | None,
    beta: str | None,
    tuned: Path | None,
    *,
    preset: str,
    demo: bool,
    quiet: bool,
) -> Result:
    """The search for a setting: one on file, or for the demo one that is made now."""
    if (beta or "").strip() != "auto":
        raise UsageError("--tuned is for --beta auto", todo="Say --beta auto, or leave out --tuned")
    if tuned is None and not demo:
        raise UsageError(
            "A beta is tuned on labelled faces, which protect doesn't ask for",
            where="--beta auto",
            todo="Run leakaudit tune with this encoder, then say --beta auto --tuned RESULT.json",
        )
    if tuned is None:
        from leakaudit.cli.tune import tuned_demo

        return tuned_demo(defence or "crafter", preset=preset, quiet=quiet)
    from leakaudit.report.json import read_result

    return read_result(tuned)


def _refuse_other_place(kit: Kit, search: Result, tuned: Path | None) -> None:
    """A setting is tuned for one encoder at one layer, behind one preprocessing and one prior."""
    about = search.subject
    ours = json.loads(json.dumps({**kit.facts, **kit.facts.get("encoder", {})}))
    if "crop" in ours:
        ours["crop"] = ours["crop"] or "none"
    for name, words in _TUNED_ON.items():
        then, now = about.get(name), ours.get(name)
        sure = name in ("weights_sha256", "layer")  # the others some results don't tell
        if then != now and (sure or None not in (then, now)):
            raise UsageError(
                f"The result was tuned on {words}",
                where=f"--tuned {tuned}",
                todo="Tune what is deployed here, or say a number",
            )


def _refuse_other_settings(
    kit: Kit, search: Result, defence: str | None, tuned: Path | None
) -> None:
    """Presets fill in what a name leaves open, so the name alone says too little."""
    from leakaudit.audit.tuned import search_of

    label = str(search_of(search, defence).label)
    then = search.plan.get("defences", {}).get(label, {})
    now = json.loads(json.dumps(kit.facts["defence"]["settings"]))
    # What doesn't move a release, the text with its order, and a hash that a plan alone holds.
    of_itself = {"batch", "spec", "code_sha256"}
    other = sorted(name for name in {*then, *now} - of_itself if then.get(name) != now.get(name))
    if other:
        name = other[0]
        raise UsageError(
            f"The beta was tuned with other settings of {label}: "
            f"{name} was {then.get(name)}, and here it is {now.get(name)}",
            where="--beta auto" if tuned is None else f"--tuned {tuned}",
            todo="Say the --preset of the search here too, or tune again with this release",
        )


_TUNED_ON = {
    "weights_sha256": "other weights",
    "layer": "another layer",
    "prior_sha256": "another prior",
    "preprocessing": "another preprocessing",
    "input_size": "pictures of another size",
    "align": "faces aligned in another way",
    "crop": "faces cut by another --crop",
}


def beta_of(text: str) -> float:
    """The number that ``--beta`` means."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise UsageError(f"'{text}' is no number from 0", where="--beta")
    return value


def _draws(
    key: Path | None, seed: int | None, out: Path, *, demo: bool
) -> tuple[Path | None, int | None]:
    """The key's file or the seed; the demo takes seed 0 where nothing is said."""
    if key is None and seed is None and not demo:
        raise UsageError(
            "A secret key is needed: without one, whoever has a picture could protect it himself "
            "and compare",
            todo="Say --key FILE; where there is no such file a key is made",
        )
    if key is not None and seed is not None:
        raise UsageError("Give --key or --seed, not both")
    if key is not None and out.resolve() in key.resolve().parents:
        raise UsageError(
            "The key would lie among what is released",
            where=f"--key {key}",
            todo="Keep it outside of --out",
        )
    return key, (seed or 0) if key is None else None


def _own(asked: dict[str, Any], recipe: dict[str, Any], say: Reporter) -> tuple[Kit, Source]:
    """The user's own encoder and pictures."""
    missing = [f"--{n}" for n in ("encoder", "images", "prior", "layer") if asked[n] is None]
    if missing:
        raise UsageError(
            f"{', '.join(missing)} missing",
            todo="Add what is missing (leakaudit prior train makes a prior, leakaudit layers SPEC "
            "lists the layers), or try the shipped demo with --demo",
        )
    from leakaudit.audit.plan import named_defence
    from leakaudit.audit.recipe import Recipe

    named_defence(recipe["defence"], recipe["preset"])  # a key isn't made for what isn't one
    how = Recipe(**recipe)
    source = how.source(asked["images"])
    if how.key is not None:
        _key(how.key, say)
    return how.load(say.step), source


def _key(path: Path, say: Reporter) -> bytes:
    """The secret key of a file, which is made where it isn't there, and then told."""
    from leakaudit.core.keys import key_id, read_or_make_key

    secret, made = read_or_make_key(path)
    if made:
        say.line(f"A secret key was made: {path} (id {key_id(secret)}). Keep it")
    return secret


def _demo(
    asked: dict[str, Any], spec: str, preset: str, key: Path | None, seed: int | None, block: int,
    people: int, say: Reporter, device: Device,
) -> tuple[Kit, Source, Subject]:  # fmt: skip
    """The shipped encoder, prior and rendered people."""
    from leakaudit.audit.demo_kit import demo_kit
    from leakaudit.cli.subjects import refuse_beside_demo
    from leakaudit.core.keys import seed_key

    refuse_beside_demo(asked)
    secret = seed_key(seed or 0) if key is None else _key(key, say)
    say.step("rendering the demo's people")
    return demo_kit(
        people, spec, preset=preset, secret=secret, seed=seed, block=block, device=device
    )


def _say_start(kit: Kit, source: Source, seed: int | None, say: Reporter) -> None:
    if seed is not None:
        from leakaudit.audit.recipe import SEED_WARNING

        say.line(f"Warning: {SEED_WARNING}.")
    for remark in kit.notes:
        say.line(f"Encoder: {remark}")
    if kit.edge.fell_back:
        say.line(
            "Rows of a block aren't independent bit by bit with this encoder on this machine: one "
            "picture at a time, which is slower"
        )
    say.line(f"{len(source.names)} pictures, {kit.label}, blocks of {kit.edge.block}")
    if source.skipped:
        name, why = source.skipped[0]
        say.line(f"{len(source.skipped)} files skipped, the first {_clean(name)}: {why}")


def _say_end(manifest: dict[str, Any], out: Path, say: Reporter) -> None:
    losses = ", ".join(f"{k.replace('_', ' ')} {v:.3g}" for k, v in manifest["losses"].items())
    say.line(
        f"{manifest['rows']} faces protected in {counted(len(manifest['shards']), 'shard')}"
        + (f"; mean {losses}" if losses else "")
    )
    if manifest["failures"]:
        why = manifest["failures"][0]["reason"]
        say.line(f"{len(manifest['failures'])} not protected, and not written: {why}, ...")
    if len(manifest["machines"]) > 1:
        say.line("Shards were made on unlike machines: they can't be reproduced bit by bit on one")
    if not manifest["complete"]:
        say.line("Not complete yet: shards of other parts are missing")
    say.line(f"Written: {out / 'manifest.json'}")


def _verified(
    kit: Kit, source: Source, out: Path, count: int, subject: Subject | None, crop: str | None,
    preset: str, gates: tuple[str, ...], say: Reporter,
) -> Any:  # fmt: skip
    from leakaudit.audit.own import crop_of
    from leakaudit.audit.verify import verify

    return verify(
        kit, source, out, count, subject=subject, crop=crop_of(crop), preset=preset,
        progress=say.progress, gates=gates,
    )  # fmt: skip


def _say_found(found: Any, say: Reporter) -> None:
    """The findings on stdout, as they are results."""
    for line in found.lines:
        say.out.print(f"{line}.", soft_wrap=True, highlight=False, markup=False)
    for row in found.identification:
        text = (
            f"  {row.defence:8} {row.attack:18} {row.value:6.1%}  ({row.low:.1%} to {row.high:.1%})"
        )
        say.out.print(text, soft_wrap=True, highlight=False, markup=False)
    for line in found.cant_tell:
        say.out.print(f"Can't tell: {line}", soft_wrap=True, highlight=False, markup=False)
    for gate in found.gates:
        told = f"gate {gate.status}: {gate.expr} - {gate.reason}"
        say.out.print(told, soft_wrap=True, highlight=False, markup=False)


def _clean(text: str) -> str:
    from leakaudit.report.words import clean

    return clean(text)


@contextlib.contextmanager
def _how_to_go_on(say: Reporter) -> Any:
    try:
        yield
    except KeyboardInterrupt:
        say.done()
        say.line("Finished shards are kept; the same command goes on")
        raise
