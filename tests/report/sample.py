"""Realistic results without running an audit: four verdicts, and names chosen to do harm."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from leakaudit.core.types import (
    Adversary,
    Comparison,
    Convergence,
    Doubt,
    Figure,
    GalleryRow,
    GateResult,
    LatentMap,
    MapGroup,
    Picture,
    Result,
    Score,
    Tried,
    Tuning,
    Utility,
    Verdict,
    Win,
)

Kind = Literal["ungated", "pass", "fail", "inconclusive"]
KINDS: tuple[Kind, ...] = ("ungated", "pass", "fail", "inconclusive")

HOSTILE = (
    "</td></style><script>alert(1)</script><img src=x onerror=alert(2)>",
    '"><svg onload=alert(3)>',
    "[x](javascript:alert(4)) **bold** | `tick` <b>bold</b> https://evil.example www.evil.example",
    "\x1b[31mred\x1b]0;title\x07\u202egnp.exe\x00\r\nsecond line\udcff @somebody #1",
    "{{ 7*7 }}{% raw %}${7*7}",
    "`" * 3 + "</code>| a | b |",
)

N = 64
ATTACKS = {"blackbox-decoder": "BlackBox", "whitebox-latent": "WhiteBox"}
CONTROLS = ("control-prior", "control-mean", "control-shuffled", "control-attributes")
DEFENCES = ("none", "gaussian:sigma=0.5", "crafter:beta=2")
NAMED = {
    "none": {"blackbox-decoder": 0.953, "whitebox-latent": 0.891},
    "gaussian:sigma=0.5": {"blackbox-decoder": 0.922, "whitebox-latent": 0.703},
    "crafter:beta=2": {"blackbox-decoder": 0.203, "whitebox-latent": 0.125},
}
MANY = {
    "blackbox-decoder": "BlackBox", "blackbox-ridge": "BlackBox", "linkage": "BlackBox",
    "whitebox-latent": "WhiteBox", "whitebox-pixel": "WhiteBox", "whitebox-dip": "WhiteBox",
    "whitebox-hybrid": "WhiteBox", "adaptive-decoder": "AdaptiveBlackBox",
    "adaptive-ridge": "AdaptiveBlackBox", "adaptive-linkage": "AdaptiveBlackBox",
    "adaptive-prior": "AdaptiveWhiteBox", "adaptive-generator": "AdaptiveBlackBox",
    "adaptive-generator-latent": "AdaptiveWhiteBox", "adaptive-averaging": "AdaptiveBlackBox",
    "adaptive-averaging-linkage": "AdaptiveBlackBox", "adaptive-purifier": "AdaptiveBlackBox",
    "adaptive-purifier-latent": "AdaptiveWhiteBox",
    "adaptive-averaging-purifier": "AdaptiveBlackBox", "linkage-classifier": "Informed",
    "linkage-gallery": "Informed",
}  # fmt: skip
MANY_NAMED = (  # by defence; None where an attack wasn't run
    (.953, .828, .984, .891, .609, .516, .969, *(None,) * 11, 1.0, .984),
    (.922, .797, .953, .703, .406, .359, .859, .938, .859, .969, .766, .906, .781, .969, .984, .953,
     .813, .969, .984, .969),
    (.125, .203, .141, .125, .094, .063, .109, .359, .438, .531, .281, .391, .297, None, None,
     .406, .313, None, .719, .625),
)  # fmt: skip
GAPS = ((-0.03, 0.0313, 0.11), (0.25, 0.3906, 0.51))
FLOORS = (0.0, 0.0156, 0.0156, 0.0313)
OTHERS = {  # metric: value where all leaks, value where nothing does, unit, direction
    "identification_top5": (1.0, 0.03, "fraction", "up"),
    "feature_similarity": (0.86, 0.08, "cosine", "up"),
    "ssim": (0.71, 0.19, "index", "up"),
    "psnr": (23.4, 11.2, "dB", "up"),
    "epsilon_pii": (0.00312, 0.00207, "distance per pixel", "up"),
    "epsilon_rel": (1.0, 0.0, "fraction of ceiling", "up"),
}


def sample_result(kind: Kind = "ungated", *, gallery: str = "full") -> Result:
    """A result of this verdict, as a demo scan would write it."""
    return Result(
        tool={"name": "leakaudit", "version": "0.1.0"},
        created="2030-01-02T03:04:05Z",
        command="leakaudit scan --demo --defence gaussian:sigma=0.5 --defence crafter:beta=2 "
        "--seed 0 -o result.json -o report.html",
        seed=0,
        device="cpu",
        subject={
            "encoder": "demo",
            "weights_sha256": "9f2c" * 16,
            "layer": "layer1",
            "feature_shape": [64, 16, 16],
            "images": N,
            "people": N,
            "gallery_people": 200,
            "public_images": 2400,
            "prior_sha256": "07ab" * 16,
            "oracle": {"kind": "demo embedding", "top1_on_originals": 0.984},
        },
        plan={
            "preset": "quick",
            "attacks": {
                "blackbox-decoder": {"epochs": 12, "lr": 0.001, "width": 64},
                "whitebox-latent": {"steps": 150, "restarts": 4, "lr": 0.05},
            },
            "defences": {
                "none": {},
                "gaussian:sigma=0.5": {"sigma": 0.5},
                "crafter:beta=2": {"beta": 2.0, "outer_steps": 40, "coupling": "image"},
            },
            "metrics": ["identification", *OTHERS, "lpips"],
            "gates": [],
        },
        scores=tuple(_scores()),
        utility=tuple(_utility()),
        convergence=tuple(_convergence()),
        doubts=_doubts(kind),
        gates=_gates(kind),
        verdict=_verdict(kind),
        adversaries=(
            Adversary(
                "BlackBox",
                ("blackbox-decoder",),
                ("public images", "a query handle on the undefended encoder"),
                ("encoder weights", "private images"),
            ),
            Adversary(
                "WhiteBox",
                ("whitebox-latent",),
                ("the encoder with gradients", "a prior", "public images"),
                ("private images", "the defence"),
            ),
            Adversary("Nothing", CONTROLS, (), ("the person's feature",)),
        ),
        gallery_mode=gallery,
        gallery=_gallery(gallery),
        maps=(_map(points=gallery != "none"),),
        seconds={"attacks": 148.2, "defences": 41.7, "metrics": 9.3, "total": 203.0},
        versions={"python": "3.11.9", "torch": "2.4.1", "pot": "0.9.4", "numpy": "1.26.4"},
        comparisons=tuple(_differences(DEFENCES)),
        wins=tuple(
            Win(defence, attack, round(N * value), 3 - k, 40 - 16 * k)
            for defence, named in NAMED.items()
            for k, (attack, value) in enumerate(named.items())
        ),
    )


def adaptive_result(kind: Kind = "fail") -> Result:
    """A result of twenty attacks, of which half studied the defences: one is a false security."""
    base = sample_result(kind)
    apart = ("worst-static", "worst", "chosen")
    kept = [s for s in base.scores if s.attack not in (*ATTACKS, *apart)]
    scores, wins, convergence, comparisons = [], [], [], _differences(DEFENCES)
    for place, defence in enumerate(DEFENCES):
        named = dict(zip(MANY, MANY_NAMED[place], strict=True))
        known = {attack: value for attack, value in named.items() if value is not None}
        scores += _many_scores(defence, known)
        counted = [attack for attack in known if MANY[attack] != "Informed"]
        wins += [
            Win(defence, attack, round(N * known[attack]), 2 if k % 7 == 1 else 0, 16 if k % 5 == 3
                else 0) for k, attack in enumerate(counted)
        ]  # fmt: skip
        curve = tuple(0.9 * math.exp(-step / 9) + 0.08 for step in range(24))
        convergence += [
            Convergence(defence, attack, 300, 115200, 0.0842, -0.0117, attack != "whitebox-dip",
                        27.9, curve, None, 640 if MANY[attack].startswith("Adaptive") else 0)
            for attack in known
        ]  # fmt: skip
        if place:
            comparisons += _gap(defence, *GAPS[place - 1])
    return replace(
        base,
        scores=(*kept, *scores),
        wins=tuple(wins),
        convergence=tuple(convergence),
        comparisons=tuple(comparisons),
    )


def _many_scores(defence: str, named: dict[str, float]) -> list[Score]:
    rows = []
    for attack, value in named.items():
        bounds = {"floor": 0.0156, "ceiling": 0.984, "excess": (value - 0.0156) / 0.9844}
        rows.append(_identification(defence, attack, MANY[attack], value, **bounds))
        others = _others(defence, attack, MANY[attack], value)
        if "linkage" in attack:
            note = "this attack names people without a picture"
            others = [
                replace(s, value=None, low=None, high=None, per_face=None, note=note)
                if s.metric in ("ssim", "psnr", "lpips", "epsilon_pii", "epsilon_rel")
                else s
                for s in others
            ]
        rows += others
    for row, adaptive in (("worst-static", (False,)), ("worst-adaptive", (True,)),
                          ("worst", (False, True)), ("chosen", (False, True))):  # fmt: skip
        best = [
            value
            for attack, value in named.items()
            if MANY[attack].startswith("Adaptive") in adaptive and MANY[attack] != "Informed"
        ]
        if best:
            value = min(1.0, max(best) + 0.0313 * (row != "chosen"))
            floor = 0.0156 * (1 if row == "chosen" else len(best))
            rows.append(_identification(defence, row, row, value, floor=floor, ceiling=0.984))
            rows += _others(defence, row, row, value)
    return rows


def _gap(defence: str, low: float, value: float, high: float) -> list[Comparison]:
    note = "9 guesses a face against 7: identification_excess allows for that; one of 2 " \
           "comparisons: interval at 97.50% (Bonferroni)"  # fmt: skip
    return [
        Comparison("false-security", defence, "worst-static", "worst-adaptive", metric,
                   value * by, low * by, high * by, N, note)
        for metric, by in (("identification", 1.0), ("identification_excess", 1.05))
    ]  # fmt: skip


def _differences(defences: tuple[str, ...]) -> list[Comparison]:
    note = "one of 3 comparisons: interval at 98.33% (Bonferroni)"
    rows = [
        Comparison("defence", one, other, "worst", "identification", -0.3 * k, -0.3 * k - 0.12,
                   -0.3 * k + 0.12, N, note)
        for k, one in enumerate(defences)
        for other in defences[:k]
    ]  # fmt: skip
    rows += [
        Comparison("chosen", defence, "whitebox-latent", "chosen", "identification", -0.0156,
                   -0.08, 0.05, N, f"'whitebox-latent' is the best of 16 in hindsight; {note}")
        for defence in defences
    ]  # fmt: skip
    return rows


def tuned_result() -> Result:
    """A result of a search over two settings, the second of which was chosen."""
    base = sample_result("pass")
    return replace(base, tuning=(_tuning("crafter:beta=auto", "worst.identification<=0.2"),))


def _tuning(spec: str, target: str) -> Tuning:
    tried = tuple(
        Tried(value, label, (Figure(target, figure, figure - 0.1, figure + 0.1, figure, holds),))
        for value, label, figure, holds in (
            (2.0, DEFENCES[1], 0.45, False),
            (12.0, DEFENCES[2], 0.15, True),
        )
    )
    return Tuning(
        spec, "beta", (target,), "met", f"beta=12: {target}", 12.0, DEFENCES[2], 2.0, None, tried
    )


def hostile_result() -> Result:
    """A failed result in which every free string tries to break out of its place."""
    base = sample_result("fail")
    bad = dict(zip(("none", *DEFENCES[1:]), HOSTILE, strict=False))
    markup = HOSTILE[2] + HOSTILE[0]
    return replace(
        base,
        comparisons=tuple(
            replace(row, defence=bad[row.defence], other=HOSTILE[0], attack=HOSTILE[4], note=markup)
            for row in (*base.comparisons, *_gap(DEFENCES[1], 0.1, 0.2, 0.3))
        ),
        wins=tuple(replace(win, defence=bad[win.defence], attack=HOSTILE[5]) for win in base.wins),
        tuning=(
            replace(_tuning(HOSTILE[0], HOSTILE[3]), knob=HOSTILE[2], reason=markup),
            Tuning(HOSTILE[1], HOSTILE[4], (), "missed", markup, None, None, None, None, ()),
        ),
        command=" ".join(HOSTILE),
        device=HOSTILE[1],
        created=HOSTILE[2],
        tool={"name": HOSTILE[0], "version": HOSTILE[5]},
        subject={HOSTILE[0]: HOSTILE[1], "encoder": list(HOSTILE), "nested": {HOSTILE[2]: markup}},
        plan={HOSTILE[0]: {HOSTILE[1]: {HOSTILE[2]: [HOSTILE[3]]}}, "preset": HOSTILE[5]},
        versions={HOSTILE[1]: HOSTILE[0]},
        seconds={HOSTILE[0]: 1.0},
        scores=tuple(
            replace(score, defence=bad[score.defence], note=markup, unit=HOSTILE[1])
            for score in base.scores
        ),
        utility=tuple(
            replace(row, defence=bad[row.defence], metric=row.metric + ":" + HOSTILE[0])
            for row in base.utility
        ),
        convergence=tuple(replace(row, note=markup, attack=HOSTILE[4]) for row in base.convergence),
        doubts=(
            Doubt(HOSTILE[0], "serious", markup, HOSTILE[3], HOSTILE[5], ((HOSTILE[0], "*"),)),
        ),
        gates=(GateResult(HOSTILE[5], 0.3, 0.4, 0.1, "fail", markup, HOSTILE[0], HOSTILE[1]),),
        verdict=Verdict("fail", " ".join(HOSTILE), 1),
        adversaries=(Adversary(HOSTILE[0], (HOSTILE[1],), (markup,), (HOSTILE[3],)),),
        gallery_mode=HOSTILE[0],
        gallery=tuple(
            replace(
                row,
                person=HOSTILE[index],
                rule=HOSTILE[1],
                pictures=tuple(
                    replace(picture, png="javascript:alert(5)", attack=HOSTILE[0], role=HOSTILE[0])
                    for picture in row.pictures
                ),
            )
            for index, row in enumerate(base.gallery)
        ),
    )


def wilson(value: float, n: int = N) -> tuple[float, float]:
    """The 95 % Wilson interval of a rate."""
    z = 1.96
    middle = (value + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def noise_picture(size: int = 64, seed: int = 0) -> str:
    """A picture that hardly compresses, the worst case for the size of a report."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return _uri(Image.fromarray(pixels))


def _identification(defence: str, attack: str, threat: str, value: float, **extra: Any) -> Score:
    low, high = wilson(value)
    return Score(
        defence, attack, threat, "identification", value, low, high, N, "fraction", "up", **extra
    )


def _scores() -> list[Score]:
    rows = []
    for defence, named in NAMED.items():
        for attack, value in named.items():
            threat = ATTACKS[attack]
            extra = {"floor": 0.0156, "ceiling": 0.984, "excess": (value - 0.0156) / 0.968}
            rows.append(_identification(defence, attack, threat, value, **extra))
            rows += _others(defence, attack, threat, value)
        worst = min(1.0, max(named.values()) + 0.0313)
        bounds = {"floor": 0.0313, "ceiling": 0.984, "excess": (worst - 0.0313) / 0.9687}
        for attack in ("worst-static", "worst"):
            rows.append(_identification(defence, attack, "-", worst, **bounds))
        rows.append(_identification(defence, "chosen", "-", max(named.values())))
        for attack, value in zip(CONTROLS, FLOORS, strict=True):
            rows.append(_identification(defence, attack, "Nothing", value))
            rows += _others(defence, attack, "Nothing", 0.0)[1:4]
        rows.append(_identification(defence, "original", "-", 0.984))
    return rows


def _others(defence: str, attack: str, threat: str, share: float) -> list[Score]:
    rows = []
    for metric, (most, least, unit, direction) in OTHERS.items():
        value = least + share * (most - least)
        half = 0.04 * abs(most)
        faces = None
        if metric == "feature_similarity":
            draws = np.random.default_rng([len(defence), len(attack)]).normal(value, 0.11, N)
            faces = tuple(round(float(x), 4) for x in np.clip(draws, -1, 1))
        rows.append(
            Score(defence, attack, threat, metric, value, value - half, value + half, N, unit,
                  direction, floor=least, ceiling=most, per_face=faces)  # type: ignore[arg-type]
        )  # fmt: skip
    note = "the weights of its network are not on this machine and were not fetched"
    rows.append(
        Score(defence, attack, threat, "lpips", None, None, None, N, "distance", "down", note=note)
    )
    return rows


def _utility() -> list[Utility]:
    drops = {"none": 0.0, "gaussian:sigma=0.5": 0.012, "crafter:beta=2": 0.041}
    rows = []
    for defence, drop in drops.items():
        for metric, value in (("auc", 0.947), ("accuracy", 0.884), ("auc:smile", 0.981),
                              ("auc:glasses", 0.995), ("auc:gaze", 0.902)):  # fmt: skip
            kept = value - drop
            wide = 0.0 if defence == "none" else 0.014
            rows.append(
                Utility(defence, metric, kept, kept - 0.02, min(1.0, kept + 0.02), N, drop,
                        drop - wide, drop + wide)
            )  # fmt: skip
    return rows


def _convergence() -> list[Convergence]:
    curve = tuple(0.9 * math.exp(-index / 9) + 0.08 for index in range(40))
    rows = []
    for defence in DEFENCES:
        rows.append(Convergence(defence, "blackbox-decoder", 456, 2400, 0.0213, -0.0031, True,
                                61.2 if defence == "none" else 0.3, curve,
                                None if defence == "none" else "trained once on none"))  # fmt: skip
        rows.append(Convergence(defence, "whitebox-latent", 150, 115200, 0.0842, -0.0117,
                                defence != "crafter:beta=2", 27.9, curve))  # fmt: skip
    rows.append(
        Convergence("crafter:beta=2", "defence", 40, 86400, 1.204, -0.006, True, 41.7, curve)
    )
    return rows


def _doubts(kind: Kind) -> tuple[Doubt, ...]:
    note = Doubt(
        "averaging-not-run",
        "note",
        "the defence is random, but no attack averaged its releases",
        "An adversary who gets several releases of one picture may average the noise away.",
        "Add adaptive-averaging to --attacks.",
        (("gaussian:sigma=0.5", "*"),),
    )
    if kind != "inconclusive":
        return (note,)
    serious = Doubt(
        "not-converged",
        "serious",
        "whitebox-latent still gained when it stopped",
        "Its loss fell by 1.2 % over the last tenth of its steps, so that a longer attack may name "
        "more faces.",
        "Give it more steps: [attacks.whitebox-latent] steps = 600.",
        (("crafter:beta=2", "whitebox-latent"), ("crafter:beta=2", "worst")),
    )
    return (note, serious)


def _gates(kind: Kind) -> tuple[GateResult, ...]:
    low, high = wilson(0.2343)
    drop = GateResult("utility.auc_drop>0.06", 0.041, 0.055, 0.06, "pass",
                      "the AUC drop of crafter:beta=2 is at most 0.055", "crafter:beta=2",
                      "utility", "auc_drop")  # fmt: skip
    if kind == "ungated":
        return ()
    if kind == "pass":
        return (
            drop,
            GateResult("crafter.worst.identification>0.4", 0.2343, high, 0.4, "pass",
                       "at most 35.2 % may be named", "crafter:beta=2", "worst",
                       "identification"),
        )  # fmt: skip
    status: Literal["fail", "inconclusive"] = "fail" if kind == "fail" else "inconclusive"
    why = "up to 35.2 % may be named" if kind == "fail" else "an attack that decides it wasn't done"
    return (
        drop,
        GateResult("crafter.worst.identification>0.1", 0.2343, high if kind == "fail" else low, 0.1,
                   status, why, "crafter:beta=2", "worst", "identification"),
    )  # fmt: skip


def _verdict(kind: Kind) -> Verdict:
    return {
        "ungated": Verdict(
            "ungated", "98.4 % of faces are named from undefended features, 23.4 % behind "
            "crafter:beta=2; no gate was asked for.", 0),
        "pass": Verdict("pass", "Both gates hold: at most 35.2 % of faces may be named.", 0),
        "fail": Verdict(
            "fail", "1 of 2 gates is breached: crafter.worst.identification is 23.4 % and may be "
            "35.2 %, above 10 %.", 1),
        "inconclusive": Verdict(
            "inconclusive", "1 of 2 gates can't be decided: whitebox-latent had not converged.", 3),
    }[kind]  # fmt: skip


def _map(*, points: bool) -> LatentMap:
    """The prior's draws, undefended answers out at one side, and defended ones among the draws."""
    rng = np.random.default_rng(5)
    places = {None: (0, 0, 1.0), "none": (2.6, 0.9, 0.7), "gaussian:sigma=0.5": (2.1, 0.6, 0.9),
              "crafter:beta=2": (0.2, 0.1, 0.95)}  # fmt: skip
    groups = []
    for name, (x, y, size) in places.items():
        at = np.array([x, y]) + size * rng.standard_normal((200 if name is None else N, 2))
        shown = sorted((round(a, 2), round(b, 2)) for a, b in at.tolist()) if points else []
        spread = round(float(np.sqrt(((at - at.mean(0)) ** 2).sum(1).mean())), 3)
        a, b = at.mean(0).round(3).tolist()
        groups.append(MapGroup(name, 1000 if name is None else N, (a, b), spread, tuple(shown)))
    return LatentMap("whitebox-latent", 64, (0.183, 0.062), tuple(groups))


def _gallery(mode: str) -> tuple[GalleryRow, ...]:
    if mode == "none":
        return ()
    rules = ("worst: most alike", "median", "best: least alike")
    rows = []
    for index, rule in enumerate(rules):
        pictures = (
            ("original", "none", "original", 0.0, True, 1.0),
            ("undefended", "none", "blackbox-decoder", 1.2, True, 0.91 - 0.1 * index),
            ("defended", "crafter:beta=2", "blackbox-decoder", 3.5, index == 0, 0.44 - 0.2 * index),
        )
        rows.append(
            GalleryRow(
                rule,
                f"p{index * 17:03d}",
                tuple(
                    Picture(role, defence, attack,
                            _face(index, blur) if mode == "full" else None, named, alike)
                    for role, defence, attack, blur, named, alike in pictures
                ),
            )
        )  # fmt: skip
    return tuple(rows)


def _face(seed: int, blur: float) -> str:
    """A drawn face, blurred as a reconstruction would be."""
    rng = np.random.default_rng(seed)
    skin, hair, back = (tuple(int(c) for c in rng.integers(low, high, 3))
                        for low, high in ((150, 230), (20, 120), (80, 200)))  # fmt: skip
    picture = Image.new("RGB", (64, 64), back)
    pen = ImageDraw.Draw(picture)
    pen.ellipse((12, 4, 52, 50), fill=hair)
    pen.ellipse((16, 10, 48, 58), fill=skin)
    for x in (25, 39):
        pen.ellipse((x - 4, 26, x + 4, 32), fill="white")
        pen.ellipse((x - 2, 27, x + 2, 31), fill=hair)
    pen.arc((24, 38, 40, 50), 20, 160, fill=(150, 40, 40), width=2)
    return _uri(picture.filter(ImageFilter.GaussianBlur(blur)))


def _uri(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
