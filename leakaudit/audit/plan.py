"""The plan: which defences, attacks and metrics, with every hyper-parameter resolved."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from leakaudit.attacks import ATTACKS, CONTROLS, Attack
from leakaudit.core.errors import UnknownNameError, UsageError
from leakaudit.core.registry import parse_spec
from leakaudit.core.resources import resource, resource_dir
from leakaudit.defences import DEFENCES, Defence

DEFAULT_PRESET = "quick"


@dataclass(frozen=True)
class NamedDefence:
    """A defence with the label that its rows carry (the specification as the user wrote it)."""

    label: str
    defence: Defence


@dataclass(frozen=True)
class Plan:
    """What will be run; ``defences`` starts with ``none``, ``controls`` set the floor."""

    preset: str
    defences: tuple[NamedDefence, ...]
    attacks: tuple[Attack, ...]
    controls: tuple[Attack, ...]
    seed: int
    training: Mapping[str, Any]

    def passes_ahead(self, faces: int, public: int) -> int:
        """Encoder passes the whole plan will take, but for the decoder's queries once."""
        attacks = sum(attack.passes_ahead(faces) for attack in self.attacks)
        defences = sum(named.defence.passes_ahead(faces) for named in self.defences)
        return public + attacks * len(self.defences) + defences

    def to_json(self) -> dict[str, Any]:
        """The resolved plan as it stands in ``result.json``."""
        return {
            "preset": self.preset,
            "attacks": {attack.name: _fields(attack) for attack in (*self.attacks, *self.controls)},
            "defences": {named.label: _fields(named.defence) for named in self.defences},
            "training": dict(self.training),
        }


def _fields(thing: Any) -> dict[str, Any]:
    return asdict(thing)


def preset_names() -> list[str]:
    """The presets that ship with the package."""
    return sorted(path.stem for path in resource_dir("presets").glob("*.toml"))


def load_preset(name: str) -> tuple[str, dict[str, Any]]:
    """A preset's name and tables, by the name of a shipped one or as a TOML file."""
    path = Path(name)
    if path.suffix != ".toml":
        if name not in preset_names():
            raise UnknownNameError("preset", name, preset_names())
        path = resource("presets", f"{name}.toml")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("The preset can't be read", where=f"{path}: {error}") from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError("The preset is not valid TOML", where=f"{path}: {error}") from error
    known = {"attacks", "defences", "training"}
    for key, table in tables.items():
        if key not in known:
            raise UnknownNameError("preset table", key, known, where=str(path))
        if not isinstance(table, dict):
            raise UsageError(f"'{key}' must be a table", where=str(path))
        for part, settings in table.items() if key != "training" else ():
            if not isinstance(settings, dict):
                raise UsageError(f"'{key}.{part}' must be a table of settings", where=str(path))
    return path.stem, tables


def make_plan(
    *,
    preset: str,
    defences: Sequence[str],
    attacks: Sequence[str] | None,
    seed: int,
    has_prior: bool,
    has_head: bool,
) -> Plan:
    """The plan for these names; UsageError where a name or setting is wrong.

    Attacks and controls that need a prior or a head are left out where there is none.
    """
    name, tables = load_preset(preset)
    attack_tables: dict[str, Any] = tables.get("attacks", {})
    for key in attack_tables:
        ATTACKS.find(key)
    wanted = list(attacks) if attacks is not None else list(attack_tables)
    wanted = list(dict.fromkeys(n for n in wanted if n not in CONTROLS))
    made = [ATTACKS.make(n, attack_tables.get(n, {})) for n in wanted]
    if not has_prior:
        made = [attack for attack in made if attack.name != "whitebox-latent"]
    if not made:
        raise UsageError("No attack is left to run", todo="Name some with --attacks")
    skipped = {"control-prior": not has_prior, "control-attributes": not has_head}
    controls = [
        ATTACKS.make(n, attack_tables.get(n, {})) for n in CONTROLS if not skipped.get(n, False)
    ]
    return Plan(
        preset=name,
        defences=tuple(_defences(defences, tables.get("defences", {}))),
        attacks=tuple(made),
        controls=tuple(controls),
        seed=seed,
        training=tables.get("training", {}),
    )


def _defences(specs: Sequence[str], tables: Mapping[str, Any]) -> list[NamedDefence]:
    for key in tables:
        DEFENCES.find(key)
    named = [NamedDefence("none", DEFENCES.make("none", {}))]
    for spec in specs:
        name, settings = parse_spec(spec, what="defence")
        if name == "none":
            if settings:
                raise UsageError("'none' takes no settings", where=f"--defence {spec}")
            continue
        defence = DEFENCES.make(name, {**tables.get(name, {}), **settings}, where=f"defence {name}")
        label = spec.strip()
        if any(label == other.label for other in named):
            raise UsageError("A defence is named twice", where=f"--defence {spec}")
        named.append(NamedDefence(label, defence))
    return named
