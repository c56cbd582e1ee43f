"""Which attacks of a suite pay: faces that only one names, and the one guess against the best.

    python benchmarks/pays.py RESULT.json...

For each result, layer and defence: what every attack names, how many faces no other attack of the
worst case names, and `chosen` minus the attack that was best in hindsight, with its paired
interval. The last table has for each attack the target on which it alone named most faces.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def main(paths: list[str]) -> None:
    """Prints the tables of these results."""
    if not paths:
        sys.exit((__doc__ or "").strip())
    say = sys.stdout.write
    alone: dict[str, tuple[int, str]] = {}
    for path in paths:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
        for part in (result, *result.get("layers", ())):
            where = f"{part['subject']['encoder']} {part['subject']['layer']}"
            for defence, text, wins in _tables(part):
                say(f"\n{where}, {defence}\n{text}\n")
                for attack, only in wins.items():
                    if only > alone.get(attack, (-1, ""))[0]:
                        alone[attack] = only, f"{where}, {defence}"
    say("\nfaces that no other attack named, at most\n")
    for attack, (only, target) in sorted(alone.items(), key=lambda item: -item[1][0]):
        say(f"{attack:34s} {only:4d}  {target if only else ''}\n")


def _tables(part: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, int]]]:
    rows = {
        (s["defence"], s["attack"]): s for s in part["scores"] if s["metric"] == "identification"
    }
    wins = {(w["defence"], w["attack"]): w["only"] for w in part["wins"]}
    for defence in dict.fromkeys(defence for defence, _ in rows):
        lines, own = [], {}
        for (_, attack), row in ((key, row) for key, row in rows.items() if key[0] == defence):
            only = wins.get((defence, attack))
            if only is not None:
                own[attack] = only
            ends = f"[{row['low']:.1%}, {row['high']:.1%}]"
            alone = "" if only is None else f"{only:4d} named by no other"
            lines.append(f"  {attack:32s} {row['value']:6.1%} {ends:16s} {alone}")
        for told in part["comparisons"]:
            if told["kind"] == "chosen" and told["defence"] == defence:
                lines.append(
                    f"  chosen minus {told['other']}: {told['difference']:+.1%} "
                    f"({told['low']:+.1%} to {told['high']:+.1%})"
                )
        yield defence, "\n".join(lines), own


if __name__ == "__main__":
    main(sys.argv[1:])
