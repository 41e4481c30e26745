"""The index of critical points against their energy, by random matrix theory.

The Hessian of a squared loss is H = H0 + H1: H0 = J^T J / m from the derivatives of the network, H1 from its second
derivatives times what is still wrong, so that H1 vanishes with the energy. Pennington and Bahri take H0 as a Wishart
and H1 as a Wigner matrix, freely independent of each other, and add their R-transforms. phi is the number of
parameters over that of residuals (samples times outputs), epsilon the energy: 1/2 the mean squared residual.

The Stieltjes transform G(z) = int rho(t)/(z - t) dt solves R0(G) + R1(G) + 1/G = z with
    R0(G) = 1/(1 - phi G)                                   Wishart, mean 1
    R1(G) = 2 eps G                          form "linear": Wigner, variance 2 eps
    R1(G) = eps phi G/(2 - eps phi^2 G^2)    form "relu":   one hidden layer of rectified units
in units in which the entries of J have variance one. What follows from it is exact for the model; that networks follow
the model is a conjecture, see `index_against_energy`.
Source: Pennington and Bahri (2017). The cubic, the critical energies and the index were checked numerically against
each other and against drawn matrices; the forms of R1 are recalled, not checked against the paper.
"""

from __future__ import annotations

import cmath
import math
from typing import Literal

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from whydeep.core.randomness import or_default

Form = Literal["linear", "relu"]
FORMS: tuple[Form, ...] = ("linear", "relu")


def critical_energy(phi: float, *, form: Form = "linear") -> float:
    """Return eps_c, below which the model's critical points are all minima: the energy at which index > 0 begins.

    linear: (1 - 20 phi - 8 phi^2 + (1 + 8 phi)^(3/2)) / 16.
    relu: (27 - 18 chi - chi^2 + 8 chi^(3/2)) / (32 phi (1 - phi)^3) with chi = 1 + 16 phi - 8 phi^2.
    phi in (0, 1): with more parameters than residuals H0 is singular and every energy is critical.
    Raises `ValueError` on other phi.

    >>> round(critical_energy(0.25), 6)  # (1 - 5 - 1/2 + 3^(3/2))/16
    0.04351
    """
    _check(phi, 1.0, form)
    if not phi < 1:
        raise ValueError(f"phi={phi}; the critical energy is defined for 0 < phi < 1, fewer parameters than residuals")
    if form == "linear":
        return (1 - 20 * phi - 8 * phi**2 + math.pow(1 + 8 * phi, 1.5)) / 16
    chi = 1 + 16 * phi - 8 * phi**2
    return (27 - 18 * chi - chi**2 + 8 * math.pow(chi, 1.5)) / (32 * phi * math.pow(1 - phi, 3))


def index(phi: float, eps: float, *, form: Form = "linear") -> float:
    """Return the fraction of negative eigenvalues of H, in [0, 1], at energy eps.

    Integrating G dz along the real axis by parts, with P' = R0 + R1, P(0) = 0 and G0 = G(0 + i0):
    index = 1 + (arg G0 + Im P(G0))/pi. Zero up to `critical_energy`, then first as (eps - eps_c)^(3/2); that power
    is only the beginning of the curve: at twice eps_c its slope in logarithms is already below 1.3. It tends to 1/2 as
    eps grows; in the form "relu" with phi > 1, where H1 is singular, to 1/(2 phi), which it is everywhere if phi >= 2.
    Raises `ValueError` when phi or eps is not positive and finite.

    >>> index(0.25, 0.8 * critical_energy(0.25)), round(index(0.25, 3 * critical_energy(0.25)), 4)
    (0.0, 0.0801)
    """
    _check(phi, eps, form)
    if form == "relu" and phi >= 2:
        # 2 m <= p: the ranges of H0, m directions up, and H1, m/2 up and m/2 down, share nothing. Their signs add up.
        return 1 / (2 * phi)
    root = _root(0.0, phi, eps, form)
    if root is None:
        # Fewer parameters than residuals: mean 1 and H0 without a negative part, the support lies right of the origin.
        # Else H1 has m/2 directions down and a null space in which H0 is positive: the origin lies in a gap.
        return 1 / (2 * phi) if form == "relu" and phi > 1 else 0.0
    # Logarithms of factors that stay in one half plane while G moves there from the negative axis: no branch is cut.
    primitive = -cmath.log(1 - phi * root) / phi
    if form == "linear":
        primitive += eps * root * root
    else:
        pole = math.sqrt(2 / eps) / phi
        primitive -= (cmath.log(1 - root / pole) + cmath.log(1 + root / pole)) / (2 * phi)
    return min(1.0, max(0.0, 1 + (cmath.phase(root) + primitive.imag) / math.pi))


def density(z: float, phi: float, eps: float, *, form: Form = "linear") -> float:
    """Return the density of eigenvalues at z, |Im G(z)|/pi; it integrates to one."""
    _check(phi, eps, form)
    root = _root(z, phi, eps, form)
    return 0.0 if root is None else -root.imag / math.pi


def left_edge(phi: float, eps: float, *, form: Form = "linear") -> float:
    """Return the smallest eigenvalue of the limit: max over G < 0 (before a pole of R1) of R0(G) + R1(G) + 1/G."""
    _check(phi, eps, form)
    # z(G) rises from -infinity at G = 0- to the edge and falls beyond it; the substitution G = -exp(s) scales it.
    # H1 is as large as the square root of eps: where eps is large, the edge is at a G as small as one over that.
    unit = 1 / math.hypot(1, math.sqrt(2) * math.sqrt(eps)) if form == "linear" else math.sqrt(2 / eps) / phi
    near = 1e-8 * min(1.0, unit)
    far = 1e8 * unit if form == "linear" else unit * (1 - 1e-12)
    found = optimize.minimize_scalar(
        lambda s: -_inverse(-math.exp(s), phi, eps, form),
        bounds=(math.log(near), math.log(far)),
        method="bounded",
        options={"xatol": 1e-12},
    )
    return -float(found.fun)


def sample(
    phi: float, eps: float, residuals: int, *, generator: torch.Generator | None = None, form: Form = "linear"
) -> Tensor:
    """Return the eigenvalues, ascending, of one drawn H of size round(phi residuals), in float64.

    H0 = J^T J/m, J (m, p) standard normal, m residuals.
    linear: H1 a symmetric Gaussian matrix whose semicircle has variance 2 eps.
    relu: H1 = sqrt(eps/2) K^T S K/m, K (m, p) standard normal, S = diag(+-1) in equal numbers: a free Poisson law of
    rate 1/phi with jumps +-phi sqrt(eps/2), and sum_i rate_i jump_i/(1 - jump_i G) is the R1 of that form.
    Raises `ValueError` when p < 2. Cost: one dense eigenvalue problem.
    """
    _check(phi, eps, form)
    size = round(phi * residuals)
    if size < 2:
        raise ValueError(f"phi={phi} and residuals={residuals} give {size} parameters; give at least 2")
    generator = or_default(generator)
    jacobian = torch.randn(residuals, size, generator=generator, dtype=torch.float64)
    drawn = torch.randn(size if form == "linear" else residuals, size, generator=generator, dtype=torch.float64)
    if form == "linear":
        second = math.sqrt(eps / size) * (drawn + drawn.T)
    else:
        signs = torch.ones(residuals, 1, dtype=torch.float64)
        signs[::2] = -1
        second = math.sqrt(eps / 2) / residuals * drawn.T @ (signs * drawn)
    values: Tensor = torch.linalg.eigvalsh(jacobian.T @ jacobian / residuals + second)
    return values


def _inverse(g: float, phi: float, eps: float, form: Form) -> float:
    """Return z(G) = R0(G) + R1(G) + 1/G for a real G."""
    second = 2 * eps * g if form == "linear" else eps * phi * g / (2 - eps * phi**2 * g**2)
    return 1 / (1 - phi * g) + second + 1 / g


def _root(z: float, phi: float, eps: float, form: Form) -> complex | None:
    """Return G(z + i0), whose imaginary part is negative inside the support, or None outside it."""
    # In u = G / unit, so that neither coefficients nor roots leave the range of numbers where eps is large or small.
    if form == "linear":
        # 2 eps G^2 (1 - phi G) + G + (1 - phi G)(1 - z G) = 0, with 2 eps unit^2 = part <= 1
        unit = 1 / math.hypot(1, math.sqrt(2) * math.sqrt(eps))
        part = eps / (0.5 + eps)
        coefficients = [part * phi * unit, -(part + z * phi * unit**2), (z + phi - 1) * unit, -1.0]
        if phi * unit < 1e-18:  # the root u = 1/(phi unit) is real, and too far from the others for their digits
            coefficients = coefficients[1:]
    else:
        # z G = G R0 + G R1 + 1 times (1 - u^2)(1 - a u), where u = 1 is the pole of R1: G R1 = u^2/(phi (1 - u^2))
        a = math.sqrt(2 / eps)
        unit = a / phi
        pole, line = np.array([-1.0, 0.0, 1.0]), np.array([-a, 1.0])
        left = np.polymul(np.polymul(pole, line), [z * unit, 0.0])
        right = np.polyadd(np.polymul(pole, [unit, 0.0]), np.polymul([1 / phi, 0.0, 0.0], line))
        coefficients = list(np.polysub(np.polyadd(right, np.polymul(pole, line)), left))
    roots = np.roots(coefficients)
    # A double root is found to half the digits: an imaginary part of 1e-8 of the root is rounding.
    below = [complex(root) for root in roots if root.imag < -1e-8 * abs(root)]
    return unit * max(below, key=lambda root: -root.imag) if below else None


def _check(phi: float, eps: float, form: str) -> None:
    if not (0 < phi < math.inf and 0 < eps < math.inf):
        raise ValueError(f"phi={phi}, eps={eps}; give both above zero and finite")
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}; give one of {', '.join(FORMS)}")
