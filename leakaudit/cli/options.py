"""Options that several commands share; each can also be given as ``LEAKAUDIT_...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def option(flag: str, text: str, *more: str, variable: str = "", **settings: Any) -> Any:
    """An option ``flag`` with its environment variable; ``more`` are further spellings.

    The variable has the flag's name, but where another command's means something else.
    """
    variable = variable or "LEAKAUDIT_" + flag.removeprefix("--").replace("-", "_").upper()
    return typer.Option(*more, flag, envvar=variable, help=text, **settings)


Demo = Annotated[bool, option("--demo", "Use the shipped encoder and rendered people.")]
EncoderSpec = Annotated[
    str | None,
    option(
        "--encoder",
        "torchvision:NAME, timm:NAME, facenet:vggface2, file.py:factory, FILE.ts, FILE.pt2, "
        "FILE.onnx or demo.",
        metavar="SPEC",
    ),
]
Weights = Annotated[Path | None, option("--weights", "The encoder's weights file.")]
OwnEncoderSpec = Annotated[
    str | None,
    option(
        "--encoder",
        "torchvision:NAME, timm:NAME, facenet:vggface2, file.py:factory, FILE.ts, FILE.pt2 or "
        "FILE.onnx; not the demo's.",
        metavar="SPEC",
    ),
]
LayerName = Annotated[
    str | None,
    option(
        "--layer",
        "Where the network is split: a path (see leakaudit layers), last, or a depth such as 0.25.",
        metavar="NAME",
    ),
]
LayerNames = Annotated[
    list[str] | None,
    option(
        "--layer",
        "Where the network is split: a path (see leakaudit layers), last, or a depth such as 0.25; "
        "several by comma, or repeated.",
        metavar="NAME",
    ),
]
TrustEncoder = Annotated[
    bool,
    option("--trust-encoder", "Open encoder files that can run code: .ts, .pt2, full pickles."),
]
Images = Annotated[Path | None, option("--images", "Private faces, a folder a person.")]
Public = Annotated[Path | None, option("--public", "Faces of other, public people.")]
Labels = Annotated[Path | None, option("--labels", "CSV file,person for a flat folder.")]
Attributes = Annotated[
    Path | None, option("--attributes", "CSV file,attr1,attr2,...; without it no utility.")
]
PriorSpec = Annotated[
    str | None,
    option(
        "--prior",
        "A prior of prior train or an earlier scan, or your own file.py:factory.",
        metavar="SPEC",
    ),
]
PriorWeights = Annotated[Path | None, option("--prior-weights", "Your own generator's weights.")]
NoCache = Annotated[
    bool, option("--no-cache", "Take no prior and no landmarks from the cache, nor keep any there.")
]
OracleSpec = Annotated[
    list[str] | None,
    option(
        "--oracle",
        "A judge: trained (default), facenet:vggface2, file.py:factory giving embeddings (N, d); "
        "repeatable, the first is the main one.",
        metavar="SPEC",
    ),
]
OracleWeights = Annotated[
    list[Path] | None,
    option(
        "--oracle-weights",
        "The judges' weights, in order of --oracle; repeatable, - for none.",
        metavar="FILE",
    ),
]
OracleSize = Annotated[
    int | None,
    option("--oracle-input-size", "Side of your own judge's pictures.", min=8, max=1024),
]
OracleMean = Annotated[str | None, option("--oracle-mean", "r,g,b that your judge subtracts.")]
OracleStd = Annotated[str | None, option("--oracle-std", "r,g,b that your judge divides by.")]
OracleChannels = Annotated[
    str | None, option("--oracle-channels", "rgb (default) or bgr: your judge's order.")
]
InputSize = Annotated[
    int, option("--input-size", "Side of the pictures, pixels: 16 times 2 to 16.", min=32, max=256)
]
Crop = Annotated[
    str | None, option("--crop", "left,top,right,bottom: the pixels kept of each private picture.")
]
PublicCrop = Annotated[
    str | None,
    option("--public-crop", "left,top,right,bottom: the pixels kept of each public picture."),
]
Align = Annotated[
    str | None,
    option("--align", "none (default), mtcnn, or mtcnn:1.4 for a closer frame.", metavar="HOW"),
]
Pairs = Annotated[
    Path | None, option("--pairs", "LFW's pairs.txt: the pictures to take, and to compare.")
]
HeadSpec = Annotated[
    str | None,
    option(
        "--head",
        "What utility is measured on: cloud (the encoder's own rest), or file.py:factory giving a "
        "logit an attribute; else a linear probe.",
        metavar="SPEC",
    ),
]
HeadWeights = Annotated[Path | None, option("--head-weights", "The weights of --head.")]
Mean = Annotated[str | None, option("--mean", "r,g,b; the network's own, else ImageNet's.")]
Std = Annotated[str | None, option("--std", "r,g,b; the network's own, else ImageNet's.")]
ChannelOrder = Annotated[
    str | None, option("--channels", "rgb (default) or bgr: the encoder's order.")
]
Preset = Annotated[str, option("--preset", "A preset's name (see leakaudit presets) or TOML file.")]
Attacks = Annotated[str | None, option("--attacks", "Names or your own file.py:factory, by comma.")]
Defences = Annotated[
    list[str] | None,
    option(
        "--defence",
        "none, gaussian:sigma=.5, crafter:beta=4, your own file.py:factory; repeatable.",
        metavar="SPEC",
    ),
]
FailOn = Annotated[
    list[str] | None,
    option("--fail-on", 'A gate, such as "identification>0.2"; repeatable.', metavar="EXPR"),
]
Policy = Annotated[
    Path | None,
    option("--policy", "A TOML file of gates, baselines and suppressions (docs/ci.md)."),
]
Output = Annotated[
    list[str] | None,
    option(
        "--output",
        "PATH is .html, .json, .md, .xml (JUnit), .sarif or .prom, else KIND:PATH, such as "
        "gitlab:FILE or dpia:FILE; - is stdout; repeatable.",
        "-o",
        metavar="[KIND:]PATH",
    ),
]
OutputFormat = Annotated[
    str | None, option("--format", "The kind of '-o -': json, html, markdown, ...")
]
RunDir = Annotated[
    Path | None, option("--run-dir", "Where the run is kept (private): leakaudit-runs/TIME-ID.")
]
Resume = Annotated[bool, option("--resume", "Go on with the stages of --run-dir.")]
Seed = Annotated[int, option("--seed", "Seed of every random choice.")]
DemoPeople = Annotated[int, option("--demo-people", "Seed of the demo's people.", min=0)]
Device = Annotated[
    str,
    option(
        "--device",
        "auto (the CPU: no GPU's results are proven yet), cpu, cuda or cuda:N.",
        metavar="NAME",
    ),
]
BatchSize = Annotated[
    str,
    option(
        "--batch-size",
        "auto, or the most faces that go through a network at once; scores stay the same.",
        metavar="auto|N",
    ),
]
AttackedPeople = Annotated[
    int | None, option("--attacked-people", "Attack at most so many people.", min=1)
]
AttackedPictures = Annotated[
    int,
    option(
        "--attacked-pictures",
        "Attack so many pictures of each person; the others are enrolled.",
        min=1,
    ),
]
KeepStudy = Annotated[
    int,
    option(
        "--keep-study",
        "Keep the faces and reconstructions of so many people for leakaudit study make.",
        min=0,
    ),
]
Offline = Annotated[
    bool, option("--offline", "Forbid the network to everything in this run, your own code too.")
]
Quiet = Annotated[bool, option("--quiet", "No progress.", "-q")]
Verbose = Annotated[bool, option("--verbose", "A line for each step, and what each took.", "-v")]
