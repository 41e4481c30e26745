"""What does depth buy? k layers of two units make 2^k linear pieces, and k layers of four units x^2 up to 4^-(k+1)."""

import torch

from whydeep.approximation import pieces, sawtooth, squaring

ends = torch.tensor([0.0]), torch.tensor([1.0])
for depth in (2, 4, 8):
    count = pieces(sawtooth(depth), *ends).count
    print(f"{depth} layers of 2 units: {count} linear pieces, for which one layer would need {count - 1} units")

x = torch.linspace(0, 1, 4097, dtype=torch.float64)[:, None]
for depth in (2, 4, 8):
    error = float((squaring(depth)(x) - x**2).abs().max().detach())
    print(f"x^2 by {depth} layers of 4 units: error {error:.2e}, theory {4.0 ** -(depth + 1):.2e}")
