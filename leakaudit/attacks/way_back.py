"""Ways back from a release to the clean feature, learnt from public pairs in closed form."""

from __future__ import annotations

from torch import Tensor

from leakaudit.attacks.learnt import Learnt, Lessons, judged, learn
from leakaudit.attacks.stand_in import Map, are_maps, can_rearrange, filtered, rearranged
from leakaudit.maths.ridge import Ridge


def ways_back(lessons: Lessons) -> list[Learnt]:
    """Maps from releases (N, ...) to clean features as rows (N, d), the least error first.

    Those of ``learn``, with the release as it is for the static one; a 3x3 convolution, alone and
    with a ridge for what it leaves; and each element from the most correlated one of the release.
    The targets of ``lessons`` are clean features.
    """
    released, clean = lessons.released, lessons.clean
    as_it_is: dict[str, Map] = {}
    if released[0].numel() == lessons.targets.shape[1]:
        as_it_is["the release as it is"] = lambda f: f.flatten(1)
    found = learn(lessons, as_it_is)

    def filtered_back(rows: Tensor) -> Map:
        return _rows(filtered(released[rows], clean[rows]))

    def filtered_twice(rows: Tensor) -> Map:
        first = filtered_back(rows)
        rest = Ridge.fit(released[rows], lessons.targets[rows] - first(released[rows]))
        return lambda f: first(f) + rest(f)

    def rearranged_back(rows: Tensor) -> Map:
        return _rows(rearranged(released[rows], clean[rows]))

    if are_maps(released, clean):
        found.append(judged(lessons, "filtered back", filtered_back))
        found.append(judged(lessons, "filtered back and a ridge", filtered_twice))
    if can_rearrange(released, clean):
        found.append(judged(lessons, "rearranged back", rearranged_back))
    return sorted(found, key=lambda one: one.error)


def _rows(apply: Map) -> Map:
    return lambda f: apply(f).flatten(1)
