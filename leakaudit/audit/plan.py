"""The plan: which defences, attacks and metrics, with every hyper-parameter resolved."""

from __future__ import annotations

import itertools
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from leakaudit.attacks import ATTACKS, CONTROLS, Attack
from leakaudit.attacks.base import NEEDS
from leakaudit.attacks.foreign import foreign_attack
from leakaudit.core.errors import UnknownNameError, UsageError
from leakaudit.core.files import sha256_of_file
from leakaudit.core.registry import Registry, parse_spec
from leakaudit.core.resources import resource, resource_dir
from leakaudit.core.specs import FactorySpec, is_factory, parse_factory
from leakaudit.core.threats import THREATS, Informed, WhiteBox
from leakaudit.defences import DEFENCES, Defence
from leakaudit.defences.foreign import foreign_defence

DEFAULT_PRESET = "quick"
RESERVED = ("worst", "worst-static", "worst-adaptive", "chosen", "utility", "original")
"""Rows that count as attacks without being one; so do all that begin with ``control-``."""


@dataclass(frozen=True)
class NamedDefence:
    """A defence with the label that its rows carry (the specification as the user wrote it)."""

    label: str
    defence: Defence

    @property
    def undefended(self) -> bool:
        """Whether features are released as they are."""
        return self.defence.name == "none"


@dataclass(frozen=True)
class Plan:
    """What will be run; ``defences`` starts with ``none``, ``controls`` set the floor.

    ``left_out`` are attacks and controls that can't be run here, each with the reason.
    """

    preset: str
    defences: tuple[NamedDefence, ...]
    attacks: tuple[Attack, ...]
    controls: tuple[Attack, ...]
    seed: int
    training: Mapping[str, Any]
    left_out: tuple[tuple[str, str], ...] = ()

    def attacks_on(self, named: NamedDefence) -> tuple[Attack, ...]:
        """The attacks that this defence may meet: adaptive ones need a defence to adapt to.

        ``Informed`` ones bring their own pictures and run on undefended features too.
        """
        return tuple(
            attack
            for attack in self.attacks
            if not (named.undefended and attack.holds.adaptive and attack.holds is not Informed)
        )

    def passes_ahead(self, faces: int, public: int) -> int:
        """Encoder passes the whole plan will take, but for the decoder's queries once."""
        return public + sum(
            named.defence.passes_ahead(faces)
            + sum(attack.passes_ahead(faces) for attack in self.attacks_on(named))
            for named in self.defences
        )

    def to_json(self) -> dict[str, Any]:
        """The resolved plan as it stands in ``result.json``."""
        return {
            "preset": self.preset,
            "attacks": {attack.name: _fields(attack) for attack in (*self.attacks, *self.controls)},
            "defences": {named.label: _fields(named.defence) for named in self.defences},
            "training": dict(self.training),
            "left_out": dict(self.left_out),
        }


def _fields(thing: Any) -> dict[str, Any]:
    """Its settings; of what another package brings, a hash of its module's file too."""
    module = sys.modules.get(type(thing).__module__)
    file = getattr(module, "__file__", None)
    if type(thing).__module__.partition(".")[0] == "leakaudit" or file is None:
        return asdict(thing)
    return {**asdict(thing), "code_sha256": sha256_of_file(Path(file))}


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
    has_recogniser: bool = True,
    has_gradients: bool = True,
) -> Plan:
    """The plan for these names, ours, other packages' and a user's ``file.py:factory``.

    Attacks and controls that need what isn't there are left out, and said; so are those whose
    adversary holds the encoder where that ``has_gradients`` no. Raises UsageError where a name or
    setting is wrong, or where nothing is left to run.
    """
    name, tables = load_preset(preset)
    attack_tables: dict[str, Any] = tables.get("attacks", {})
    for key in attack_tables:
        _known(ATTACKS, key)
    made = _attacks(list(attack_tables) if attacks is None else attacks, attack_tables)
    controls = [ATTACKS.make(control, attack_tables.get(control, {})) for control in CONTROLS]
    there = {"prior": has_prior, "head": has_head, "recogniser": has_recogniser}
    there["gradients"] = has_gradients
    left_out = {a.name: why for a in (*made, *controls) if (why := _lacking(a, there))}
    made = [attack for attack in made if attack.name not in left_out]
    if not made:
        why = "; ".join(f"{attack}: {reason}" for attack, reason in left_out.items())
        raise UsageError(
            "No attack is left to run", where=why or None, todo="Name some with --attacks"
        )
    named = _defences(defences, tables.get("defences", {}))
    if not has_gradients:
        _refuse_followers(named)
    return Plan(
        preset=name,
        defences=tuple(named),
        attacks=tuple(made),
        controls=tuple(control for control in controls if control.name not in left_out),
        seed=seed,
        training=tables.get("training", {}),
        left_out=tuple(left_out.items()),
    )


def named_defence(spec: str, preset: str) -> NamedDefence:
    """The defence of this specification, with the preset's settings where it says none.

    Raises UsageError for ``none``, which is no defence.
    """
    made = _defences([spec], load_preset(preset)[1].get("defences", {}))
    if len(made) < 2:
        raise UsageError(
            "'none' protects nothing: undefended features are never written, and there is nothing "
            "to set",
            where=f"--defence {spec}",
        )
    return made[1]


def _lacking(attack: Attack, there: Mapping[str, bool]) -> str | None:
    """Why an attack can't be run on this subject, or nothing."""
    holds_encoder = issubclass(attack.holds, WhiteBox)
    needs = (*attack.needs, "gradients") if holds_encoder else attack.needs
    lacking = [_LACKING.get(thing, f"no {thing}") for thing in needs if not there[thing]]
    return f"there is {' and '.join(lacking)}" if lacking else None


_LACKING = {"gradients": "no gradient of the encoder, which such an adversary holds"}


def _refuse_followers(defences: Sequence[NamedDefence]) -> None:
    """A defence that was asked for by name is never left out in silence."""
    for named in defences:
        if named.defence.uses_prior:  # it searches the prior through the encoder
            raise UsageError(
                "This defence follows the encoder's gradients, and the encoder gives none",
                where=f"--defence {named.label}",
                todo="Leave it out, or give a differentiable form of the encoder",
            )


def _known(registry: Registry[Any], key: str) -> None:
    """A table of a preset must be named as one of the registry's, or as a user's factory."""
    if not is_factory(key):
        registry.find(key)
    elif parse_factory(key, what=registry.kind).written:
        raise UsageError("Settings belong into the table, not into its name", where=key)


def _attacks(specs: Sequence[str], tables: Mapping[str, Any]) -> list[Attack]:
    """The attacks of these names; controls are left to themselves, and repetitions count once."""
    made: dict[str, Attack] = {}
    owned: list[FactorySpec] = []
    for spec in specs:
        if not is_factory(spec):
            if spec not in CONTROLS:
                made[spec] = _checked(ATTACKS.make(spec, tables.get(spec, {})))
            continue
        own = _own(spec, tables, what="attack")
        if not any(own.same_as(other) for other in owned):
            owned.append(own)
            attack = foreign_attack(own, name=_free_name(own.name, made))
            made[attack.name] = attack
    return list(made.values())


def _own(spec: str, tables: Mapping[str, Any], *, what: str) -> FactorySpec:
    """A user's factory; a preset's table of the same name sets what ``spec`` doesn't."""
    parsed = parse_factory(spec, what=what)
    return parsed.over(tables.get(f"{parsed.source}:{parsed.factory}", {}))


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    """A name for a user's attack that no other row of the result has."""
    if name in RESERVED or name.startswith("control-") or name in ATTACKS.names():
        name = f"own-{name}"
    names = (f"{name}-{count}" if count > 1 else name for count in itertools.count(1))
    return next(free for free in names if free not in taken)


def _checked(attack: Attack) -> Attack:
    """An attack of another package may be no control, and holds one of our threat models."""
    if attack.control or attack.name in RESERVED or attack.name.startswith("control-"):
        raise UsageError(f"The attack '{attack.name}' counts as a control, which only ours may be")
    if attack.holds not in THREATS.values():
        raise UsageError(f"The attack '{attack.name}' holds none of: {', '.join(THREATS)}")
    for thing in attack.needs:
        if thing not in NEEDS:
            raise UnknownNameError("need", str(thing), NEEDS, where=f"attack {attack.name}")
    return attack


def _defences(specs: Sequence[str], tables: Mapping[str, Any]) -> list[NamedDefence]:
    for key in tables:
        _known(DEFENCES, key)
    named = {"none": NamedDefence("none", DEFENCES.make("none", {}))}
    owned: list[FactorySpec] = []
    for spec in (text.strip() for text in specs):
        if is_factory(spec):
            own = _own(spec, tables, what="defence")
            if any(own.same_as(other) for other in owned):
                raise UsageError("A defence is named twice", where=f"--defence {spec}")
            owned.append(own)
            label = _free_label(own.label, named)
            named[label] = NamedDefence(label, foreign_defence(own))
            continue
        name, settings = parse_spec(spec, what="defence")
        if name == "none":
            if settings:
                raise UsageError("'none' takes no settings", where=f"--defence {spec}")
            continue
        defence = DEFENCES.make(name, {**tables.get(name, {}), **settings}, where=f"defence {name}")
        if spec in named:
            raise UsageError("A defence is named twice", where=f"--defence {spec}")
        named[spec] = NamedDefence(spec, defence)
    return list(named.values())


def _free_label(label: str, taken: Mapping[str, Any]) -> str:
    """Files of one name in two folders are told apart by their order."""
    labels = (f"{label}#{count}" if count > 1 else label for count in itertools.count(1))
    return next(free for free in labels if free not in taken)
