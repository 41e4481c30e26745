"""Pontryagin's view of a network: states forward, co-states backward, and a Hamiltonian for every layer.

A network is a controlled system x_{t+1} = f_t(x_t, theta_t), t = 0..T-1, and training chooses the controls theta_t.
With the co-states p_T = -grad of the sample's loss, p_t = grad_x <p_{t+1}, f_t(x_t, theta_t)>, the Hamiltonian

    H_t(theta) = 1/n sum over samples of <p_{t+1}, f_t(x_t, theta)> - ridge/2 ||theta||^2

has the gradient -d(R + ridge/2 sum_s ||theta_s||^2)/dtheta_t at the present controls, R the risk (a mean over samples).
Source: Li, Chen, Tai and E, Maximum principle based algorithms for deep learning, JMLR 2018 (recalled, not checked
against the paper).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from whydeep.core.errors import InputError
from whydeep.core.loss import PerSample


@dataclass(frozen=True)
class Layer:
    """One f_t of the network: its modules in order, and its control, the trainable parameters among theirs.

    The module of a residual block, x + delta g(x), is a layer like any other.
    """

    modules: tuple[nn.Module, ...]

    @property
    def control(self) -> list[nn.Parameter]:
        """theta_t: the trainable parameters, the network's own."""
        return [value for module in self.modules for value in module.parameters() if value.requires_grad]

    def __call__(self, x: Tensor) -> Tensor:
        """Return f_t(x, theta_t)."""
        for module in self.modules:
            x = module(x)
        return x


def layers_of(model: nn.Module, *, solver: str = "MSA") -> tuple[Layer, ...]:
    """Return the layers of an nn.Sequential: every child with parameters and the ones without that follow it.

    So Linear, Tanh is one layer tanh(W x + b), and children without parameters at the front (Flatten) belong to the
    first. A child that is itself an nn.Sequential, or any other module, is one child.

    Raises `InputError`, in the name of `solver`, when the model is no nn.Sequential or has its own forward, when it has
    nothing to train, or when two layers share a parameter: the Hamiltonian of one would then depend on the other's
    control.
    """
    # A subclass may compute anything from its children, a skip connection for one.
    if not isinstance(model, nn.Sequential) or type(model).forward is not nn.Sequential.forward:
        raise InputError(
            f"{solver} trains an nn.Sequential, whose children are its layers, and the model is {type(model).__name__}",
            "wrap its blocks into nn.Sequential, or train it by Backprop",
        )
    groups: list[list[nn.Module]] = [[]]
    for child in model:
        trainable = any(value.requires_grad for value in child.parameters())
        if trainable and any(value.requires_grad for module in groups[-1] for value in module.parameters()):
            groups.append([])
        groups[-1].append(child)
    layers = tuple(Layer(tuple(group)) for group in groups)
    seen: dict[int, int] = {}
    for index, layer in enumerate(layers):
        for value in layer.control:
            if seen.setdefault(id(value), index) != index:
                raise InputError(
                    f"layers {seen[id(value)]} and {index} share a parameter, and {solver} updates each by itself",
                    "give every layer its own, or train it by Backprop",
                )
    if not seen:
        raise InputError("the model has no trainable parameter", f"give {solver} one that has")
    return layers


@dataclass(frozen=True)
class Trajectory:
    """States and co-states of a batch at one set of controls, detached.

    states: x_0..x_T, (n, ...) each. costates: p_1..p_T, so that `costates[t]` belongs to layer t; p_t of a sample is
    -grad of its own loss by its x_t: there is no 1/n. p_0 steers nothing, as x_0 is given.
    losses: (n,), of every sample.
    """

    states: tuple[Tensor, ...]
    costates: tuple[Tensor, ...]
    losses: Tensor


def trajectory(layers: Sequence[Layer], loss: PerSample, x: Tensor, targets: Tensor) -> Trajectory:
    """Return states by a forward pass of samples x (n, ...) and co-states by the backward recursion.

    The layers must treat the samples one by one: batch normalisation and dropout belong into evaluation mode.
    Cost: one gradient.
    """
    states, results = [x.detach()], []
    with torch.enable_grad():
        for layer in layers:
            # The first state is data: nobody asks for a gradient by it.
            states[-1].requires_grad_(len(states) > 1)
            results.append(layer(states[-1]))
            states.append(results[-1].detach())
        states[-1].requires_grad_()
        losses = loss(states[-1], targets)
        (slope,) = torch.autograd.grad(losses.sum(), states[-1])
        costates = [-slope]
        for state, result in zip(states[-2:0:-1], results[:0:-1], strict=True):
            (costate,) = torch.autograd.grad(result, state, grad_outputs=costates[0])
            costates.insert(0, costate)
    return Trajectory(tuple(state.detach() for state in states), tuple(costates), losses.detach())


def hamiltonian(layer: Layer, state: Tensor, costate: Tensor) -> Tensor:
    """Return 1/n sum over samples of <p_{t+1}, f_t(x_t, theta)> at the layer's present control, without the ridge.

    state: x_t (n, ...). costate: p_{t+1}, shaped as the layer's results. It can be differentiated by the control.
    """
    return (layer(state) * costate).sum() / len(state)


def extended_hamiltonian(
    layers: Sequence[Layer], path: Trajectory, index: int, *, rho: float = 0.0, ridge: float = 0.0
) -> Tensor:
    """Return the Hamiltonian of layer t = `index` less what keeps states and co-states on the trajectory.

    H_t(theta) - rho/2 1/n sum over samples of ( ||x_{t+1} - f_t(x_t, theta)||^2
                                                  + ||p_t - grad_x <p_{t+1}, f_t(x_t, theta)>||^2 ),

    H_t with its ridge; x and p of `path` are frozen. The second misfit is left out at t = 0, where the paper's
    sum has it: x_0 is given, so that p_0 has no part in how far the risk is from its linearisation.
    It can be differentiated by the control of that layer, twice through the layer where rho > 0.
    """
    layer, state, costate = layers[index], path.states[index], path.costates[index]
    decay = ridge / 2 * sum((value.square().sum() for value in layer.control), state.new_zeros(()))
    if rho == 0:
        return hamiltonian(layer, state, costate) - decay
    state = state.detach().requires_grad_(index > 0)
    result = layer(state)
    value = (result * costate).sum()
    misfit = (path.states[index + 1] - result).square().sum()
    if index > 0:
        (slope,) = torch.autograd.grad(value, state, create_graph=True)
        misfit = misfit + (path.costates[index - 1] - slope).square().sum()
    return (value - rho / 2 * misfit) / len(state) - decay


def maximise(
    layers: Sequence[Layer], path: Trajectory, index: int, *, rho: float = 0.0, ridge: float = 0.0, inner: int = 10
) -> float:
    """Move the control of layer `index` in place to a higher extended Hamiltonian; return by how much it has risen.

    At most `inner` iterations of L-BFGS with the strong Wolfe conditions, from the present control. What comes back is
    never lower: a control that is not finite or no better is taken back, and the rise is 0. `path` is frozen, so the
    layers may be taken in any order, or at the same time, with the same result.
    Cost: some 1.3 evaluations of the layer's gradient an iteration; twice differentiated where rho > 0.
    """
    control = layers[index].control
    if not control:
        return 0.0
    before = [value.detach().clone() for value in control]
    # The tolerances are below what single precision resolves: there `inner` is what ends the search.
    search = torch.optim.LBFGS(
        control, max_iter=inner, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        value = -extended_hamiltonian(layers, path, index, rho=rho, ridge=ridge)
        # A control that the layer's result does not depend on has slope zero.
        for one, slope in zip(control, torch.autograd.grad(value, control, materialize_grads=True), strict=True):
            one.grad = slope.contiguous()  # L-BFGS takes views, and twice differentiated convolutions have none
        return float(value.detach())

    # The fused kernels of attention have no second derivative; the plain one has.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        start = float(search.step(closure))  # type: ignore[no-untyped-call]
        rise = start - float(-extended_hamiltonian(layers, path, index, rho=rho, ridge=ridge).detach())
    for value in control:
        value.grad = None
    if math.isfinite(rise) and rise > 0:
        return rise
    with torch.no_grad():
        for value, old in zip(control, before, strict=True):
            value.copy_(old)
    return 0.0
