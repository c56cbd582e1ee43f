"""crafter: move the feature until its best inversion looks like another, public face."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from leakaudit.core.checks import above_zero, at_least
from leakaudit.core.cost import Cost
from leakaudit.core.errors import UnknownNameError, UsageError
from leakaudit.core.rng import Rng
from leakaudit.defences.base import Defence, Deployed, Released, Workshop
from leakaudit.defences.crafted import Best, Crafted, Patience, released
from leakaudit.defences.crafting import Measures, curvature_ahead, drawn_by, drawn_from, key_of
from leakaudit.defences.exchange import exchange_ahead, worth_of
from leakaudit.defences.goals import Goals, Own, Shared, privacy
from leakaudit.defences.leading import Led, inverted, lead
from leakaudit.maths.chunks import bounded
from leakaudit.maths.hypergradient import Linearised, damping_of, formed, gauss_newton, pull_at
from leakaudit.maths.inverse_hvp import ConjugateGradient, Direct, Neumann, Solver
from leakaudit.maths.transport import Transport, known_transport
from leakaudit.models.best_response import LatentSearch

SOLVERS = ("cg", "neumann", "direct")
COUPLINGS = ("image", "batch")


@final
@dataclass(frozen=True)
class Crafter(Defence):
    """``F* = argmin_F beta w L_privacy(F) + L_utility(F)``, by implicit differentiation.

    ``L_privacy`` is the Euclidean distance, over pixels pooled by ``pool``, from the best inversion
    ``G(z*(F))`` to the public face that an exact transport plan gives it, divided by the mean
    distance between two faces of the prior. With ``unshade`` each channel's linear ramps across and
    down are taken out of both first: the side the light comes from is no identity, and moving it
    costs utility. ``L_utility = |F - Enc(x)|²`` divided by the variance
    of the prior's features (summed over elements). Neither has a unit; 1 is "as far as a stranger".
    Larger ``beta`` means more privacy (the paper's Eq. 8 puts its beta on the utility term), and w,
    ``worth``, makes it mean much the same behind most encoders; 0: measured (see ``exchange``).

    The plan is exact POT between ``plan_size`` inversions (this face's and ``plan_size - 1`` stored
    public ones) and as many fresh faces of the prior, drawn from a key and the image's own content:
    no face depends on another one (coupling by image). With ``plan_size=1`` the partner is one
    independent draw. With ``replay`` the key belongs to the deployment, so that a picture that is
    sent twice is released as the same bits, and there is nothing to average; without it every
    release draws a fresh key.

    It begins with ``start_steps`` of Gauss-Newton on the latent, as ``crafter-residual`` does,
    whose release ``Enc(x) + Enc(G(z)) - Enc(G(z0))`` is this objective's optimum in a world of
    matrices. ``outer_steps`` by implicit differentiation may follow. Each solves
    ``(JᵀJ + lambda I) u = dL_privacy/dz`` by ``solve_steps`` of conjugate gradient, J the Jacobian
    of ``Enc(G(z))``, moves F by the face's own rate towards ``Enc(x) - beta w scale J u / 2``, the
    fixed point of the objective's gradient, and re-solves z by ``follow_steps`` of Gauss-Newton. A
    face whose objective rose goes back to its best iterate with a shorter rate, starting from
    ``rate``. In the end an adversary inverts anew: a face for which the outer steps only fooled the
    tracked z stays where it began. By default there are none, as they buy nearness to ``Enc(x)``
    with names (docs/benchmarks.md). ``start_steps=0`` begins at ``Enc(x)``, as the paper does.

    ``solver`` is cg, neumann (``terms`` of the series, at a rate that converges) or direct (JᵀJ is
    formed by a product a latent coordinate). ``coupling="batch"`` is the paper's: one plan between
    the faces of a batch and ``plan_size`` goals for each, so that a release depends on who else is
    in the batch. ``transport`` is exact, sinkhorn, or the paper's critic, which takes the batch. A
    face stops early when three steps in a row gained it less than ``tolerance`` of its objective; 0
    takes all steps.

    Source: Crafter (NDSS 2024), Eq. 8 and Alg. 1; Gauss-Newton and the image coupling are ours.
    """

    name: ClassVar[str] = "crafter"
    source: ClassVar[str] = "Crafter, NDSS 2024, Eq. 8 and Alg. 1"
    keeps_rows: ClassVar[bool] = True
    uses_prior: ClassVar[bool] = True
    knob: ClassVar[str] = "beta"

    beta: float = 4.0
    worth: float = 0.0
    plan_size: int = 1
    start_steps: int = 10
    outer_steps: int = 0
    rate: float = 0.1
    solve_steps: int = 4
    follow_steps: int = 2
    damping: float = 0.03
    pool: int = 4
    unshade: bool = True
    samples: int = 1000
    search: LatentSearch = field(default_factory=lambda: LatentSearch(steps=60))
    batch: int = 16
    replay: bool = True
    solver: str = "cg"
    terms: int = 120
    coupling: str = "image"
    transport: str = "exact"
    regularisation: float = 0.05
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        at_least("crafter", 0, beta=self.beta, worth=self.worth, damping=self.damping)
        at_least("crafter", 0, start_steps=self.start_steps, outer_steps=self.outer_steps)
        at_least("crafter", 1, plan_size=self.plan_size, pool=self.pool, batch=self.batch)
        at_least("crafter", 1, solve_steps=self.solve_steps, follow_steps=self.follow_steps)
        at_least("crafter", 8, samples=self.samples)
        at_least("crafter", 1, terms=self.terms)
        at_least("crafter", 0, tolerance=self.tolerance)
        above_zero("crafter", rate=self.rate, regularisation=self.regularisation)
        if self.solver not in SOLVERS:
            raise UnknownNameError("solver", self.solver, SOLVERS, where="crafter")
        if self.coupling not in COUPLINGS:
            raise UnknownNameError("coupling", self.coupling, COUPLINGS, where="crafter")
        if not self.outer_steps and (self.coupling == "batch" or not self.start_steps):
            raise UsageError(
                "crafter: with coupling=batch or start_steps=0 only outer steps craft anything",
                todo="Add outer_steps=16,rate=0.5",
            )
        known_transport(self.transport, where="crafter")
        if self.transport == "critic" and self.coupling != "batch":
            raise UsageError(
                "crafter: a critic is trained on the faces of a batch, not on one face",
                todo="Add coupling=batch, or take transport=exact or sinkhorn",
            )

    @property
    def will_replay(self) -> bool:
        """With ``replay``, unless a release depends on who else is in the batch."""
        return self.replay and self.coupling == "image"

    def deploy(self, workshop: Workshop, rng: Rng) -> Deployed:
        """Fits the amortised start and stores the inversions of a few public faces."""
        return CrafterAtWork(self, workshop, rng)

    def passes_ahead(self, faces: int) -> int:
        """Amortiser, first inversions, the start, products with J and its transpose, the check."""
        pair = 4  # one product with J and one with its transpose
        solves = {"cg": self.solve_steps + self.follow_steps + 2, "neumann": 2 * self.terms + 18}
        products = solves.get(self.solver, 0)
        outer = self.outer_steps * (pair * (products + 1) + 6)
        inverted = 3 * self.search.steps * (faces + self.plan_size - 1)
        again = 2 * (pair * (solves["cg"] if self.solver == "cg" else products) + 6) * faces
        leads = self.start_steps > 0 and self.coupling == "image"
        inverted += 0 if self.worth else exchange_ahead()
        inverted += curvature_ahead() if leads or not self.worth else 0
        if leads:
            inverted += self.start_steps * (pair * (self.solve_steps + 2) + 1) * faces
            if self.outer_steps:
                again += again + 3 * self.search.steps * faces
        return self.samples + inverted + again + faces * outer

    def cost_ahead(self, faces: int) -> Cost:
        """Every pass through the encoder goes through the prior too."""
        passes = self.passes_ahead(faces)
        fits = 1 if self.worth else 2  # the start, and what is read of features
        return Cost(encodes=passes, generates=passes, solves=(self.samples,) * fits)


@final
class CrafterAtWork(Deployed):
    """A deployed Crafter; see :class:`Crafter` for the algorithm."""

    def __init__(self, how: Crafter, workshop: Workshop, rng: Rng) -> None:
        self.encoder, self._how = workshop.encoder, how
        self._key = key_of(rng) if workshop.key is None else workshop.key
        self.replays = how.will_replay
        self._transport = Transport(how.transport, how.regularisation)
        curved = not how.worth or (how.start_steps > 0 and how.coupling == "image")
        self.measures = Measures(how, workshop, rng, name=how.name, curved=curved)
        self.measures.by(self._transport)
        self.scale, self.stranger = self.measures.scale, self.measures.stranger
        self.worth = worth_of(how.worth, self.measures)

    @property
    def price(self) -> float:
        """What a privacy loss of 1 costs in the objective, whose utility loss counts as it is."""
        return self._how.beta * self.worth.value

    def response(self, z: Tensor) -> Tensor:
        """``Enc(G(z))``, (N, ...), for latents (N, latent)."""
        return self.measures.response(z)

    def invert(self, features: Tensor) -> Tensor:
        """The simulated adversary's best response: latents (N, latent) for features (N, ...)."""
        return inverted(
            self.measures, features, solve=self._solver(self._how.solve_steps),
            damping=self._how.damping, linearised=self._linearised,
        )  # fmt: skip

    def release(self, images: Tensor, rng: Rng) -> Released:
        """Protected features (N, ...); the same image and key give the same release.

        With ``coupling="batch"`` it is the same batch and key that do.
        """
        key = self._key if self._how.replay else key_of(rng)
        before, parts, unsettled = self.measures.passes, [], []
        most = self._how.batch
        for batch in images.split(most if self._how.coupling == "batch" else bounded(most)):
            features = self.measures.encoded(batch)
            part = self.craft_towards(features, self._goals(batch, key))
            parts.append(part)
            unsettled.append(self.measures.unsettled(part.latents, part.features))
        spent = self.measures.at_deployment + self.measures.passes - before
        steps = max(len(part.objective) for part in parts) - 1
        solve = "hypergradient_residual" if self._how.outer_steps else "step_residual"
        return released(
            parts, unsettled, steps=steps, passes=spent, solve=solve, more=self.worth.told
        )

    def partners(self, image: Tensor, key: bytes) -> Tensor:
        """Pooled faces of the prior (plan_size, d) that this key and picture (3, H, W) draw."""
        return self.measures.partners(image, key)

    def drawn(self, content: bytes) -> Tensor:
        """Pooled faces of the prior (plan_size, d) for this content, by the deployment's key."""
        return self.measures.drawn(drawn_from(self._key, content), self._how.plan_size)

    def _goals(self, images: Tensor, key: bytes) -> Goals:
        if self._how.coupling == "image":
            partners = torch.stack([self.partners(image, key) for image in images])
            return Own(self.measures, partners)
        draws = drawn_by(key, images)
        goals = self.measures.drawn(draws, self._how.plan_size * len(images))
        return Shared(self.measures, goals, self._transport, draws)

    def craft(self, features: Tensor, partners: Tensor) -> Crafted:
        """Protected features for features (N, ...) and pooled candidate faces (N, plan_size, d)."""
        return self.craft_towards(features, Own(self.measures, partners))

    def craft_towards(self, features: Tensor, goals: Goals) -> Crafted:
        """Protected features for features (N, ...) and whom their faces shall be led to."""
        how = self._how
        z0 = self.invert(features)
        if not (isinstance(goals, Own) and how.start_steps):
            return self._stepped(features, z0, features.clone(), z0, goals).crafted()
        begun = self._begun(features, z0, goals.partners)
        if not how.outer_steps:
            return begun.crafted()
        start = begun.best
        found = self._stepped(features, z0, start.features, start.latents, goals)
        best = self._upheld(found.best, start, goals)
        curve = begun.curve[:-1] + found.curve[:-1] + (float(best.value.mean()),)
        found = replace(found, best=best, curve=curve, unexpressed=begun.unexpressed)
        return found.crafted()

    def _stepped(self, F0: Tensor, z0: Tensor, F: Tensor, z: Tensor, goals: Goals) -> Led:
        """Outer steps for features F0, whose inversion is z0, from F and its inversion z."""
        how = self._how
        solve, follow = self._solver(how.solve_steps), self._solver(how.follow_steps)
        u, ridge = None, None
        best, patience = Best.start(F0, z), Patience(len(z), how.tolerance)
        rate = torch.full((len(z), 1), how.rate, device=z.device)
        curve, residual = [], 0.0
        for step in range(how.outer_steps + 1):
            if goals.shared:
                best = self._renewed(best, goals)
            loss, slope = privacy(self.measures, goals, z)
            utility = self.measures.apart(F, F0)
            value = self.price * loss + utility
            # A fixed step oscillates where beta is large: a face that got worse goes back to its
            # best iterate and tries a shorter one.
            better = (value < best.value)[:, None]
            rate = torch.where(better, (1.2 * rate).clamp(max=1.0), 0.4 * rate)
            before = best.value
            best = best.updated(value, F, z, loss, utility, slope)
            patience.saw(before, best.value)
            curve.append(float(best.value.mean()))
            if step == how.outer_steps or bool(patience.settled.all()):
                break
            F, z = best.features, best.latents
            at = self._linearised(z)
            if ridge is None:  # measured once: its scale hardly moves along the way
                ridge = damping_of(at, best.slope, how.damping)
            found = pull_at(at, best.slope, solve=solve, absolute=ridge, x0=u)
            u, residual = found.solution, float(found.residual.mean())
            reach = 0.5 * self.price * self.scale
            goal = F0 - reach * found.value
            rate = patience.held(rate)
            F = F + rate.view(-1, *([1] * (F.dim() - 1))).to(F) * (goal - F)
            ahead = rate.to(z) * (z0 - reach * u - z)  # what the step would be in a linear world
            z = z + patience.held(gauss_newton(at, F, solve=follow, absolute=ridge, x0=ahead).x)
        return Led(best, tuple(curve), residual, patience.settled)

    def _upheld(self, best: Best, begun: Best, goals: Goals) -> Best:
        """The better of both where an adversary who inverts anew agrees, else where it began.

        The tracked inversion is a stationary point of the adversary's loss, which says nothing of
        where its least value lies: outer steps can lead a feature back towards the person while the
        tracked point stays where the other face is.
        """
        z = self.invert(best.features)
        loss, slope = privacy(self.measures, goals, z)
        nearer = self._misfit(z, best.features) < self._misfit(best.latents, best.features)
        loss = torch.where(nearer, loss, best.privacy)
        found = replace(
            best,
            value=self.price * loss + best.utility,
            privacy=loss,
            latents=torch.where(nearer[:, None], z, best.latents),
            slope=torch.where(nearer[:, None], slope, best.slope),
        )
        return begun.updated(
            found.value, found.features, found.latents, found.privacy, found.utility, found.slope
        )

    def _misfit(self, z: Tensor, features: Tensor) -> Tensor:
        return (self.measures.answered(z) - features).flatten(1).square().sum(1)

    def _begun(self, features: Tensor, z0: Tensor, partners: Tensor) -> Led:
        """Where ``crafter-residual`` ends, whose optimum is this one's in a world of matrices."""
        how, made = self._how, self.measures.answered(z0)
        found = lead(
            self.measures, z0, made, partners, price=self.price,
            steps=how.start_steps, damping=how.damping or 1e-6, tolerance=how.tolerance,
            solve_steps=how.solve_steps,
        )  # fmt: skip
        kept = found.best.features + (features - made)
        missed = self.measures.apart(features, made)
        return replace(found, best=replace(found.best, features=kept), unexpressed=missed)

    def _linearised(self, z: Tensor) -> Linearised:
        at = self.measures.linearised(z)
        return formed(at, z) if self._how.solver == "direct" else at

    def _solver(self, steps: int) -> Solver:
        if self._how.solver == "neumann":
            return Neumann(self._how.terms, alpha=1.0, relative=True)
        if self._how.solver == "direct":
            return Direct()
        return ConjugateGradient(steps=steps, tolerance=1e-3)

    def _renewed(self, best: Best, goals: Goals) -> Best:
        """The best iterates under the plan that is best for them."""
        with torch.no_grad():
            goals.renew(self.measures.pooled(self.measures.prior(best.latents)))
        return best.recharged(self.price, *privacy(self.measures, goals, best.latents))
