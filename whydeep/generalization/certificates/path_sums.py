"""What a certificate needs to know of a Langevin path; `optimization.SGLD(..., accumulate=True).path` has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor


class LogRatio(Protocol):
    """ln dQ/dP of one path, in nats."""

    @property
    def divergence(self) -> float:
        """sum_k beta_k eta_k ||d_k||^2 / 4, whose expectation is KL(Q || P)."""

    @property
    def fluctuation(self) -> float:
        """sum_k sqrt(beta_k eta_k / 2) <d_k, z_k>, of mean zero."""

    @property
    def decayed(self) -> float:
        """The divergence with the weights exp(-lambda (T_N - T_k) / 2)."""

    @property
    def value(self) -> float:
        """Divergence minus fluctuation."""


class Path(Protocol):
    """The sums along a path."""

    @property
    def steps(self) -> int:
        """How many steps were made."""

    @property
    def data_free(self) -> LogRatio:
        """Against the same update without the data's gradient."""

    @property
    def prior(self) -> LogRatio | None:
        """Against the update that followed a part of the samples."""

    @property
    def rates(self) -> tuple[tuple[float, float, int], ...]:
        """(eta, beta, steps), run by run."""

    @property
    def one_rate(self) -> bool:
        """Whether all parameters had the same rates."""

    @property
    def clip(self) -> float | None:
        """What every sample's gradient was clipped to."""

    @property
    def strayed(self) -> bool:
        """Whether something else than the steps moved the weights."""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of all tensors of weights."""

    @property
    def rounding(self) -> float:
        """Divergence, in nats, of shifts by one unit in the last place of every weight in every step."""

    def place(self, weights: Iterable[Tensor]) -> int | None:
        """Return after which step the weights were exactly these; None after none."""
