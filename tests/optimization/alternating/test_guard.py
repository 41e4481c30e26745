import pytest
import torch

from whydeep.optimization.alternating.guard import HALVINGS, shares


@pytest.mark.parametrize("least", [1.0, 0.5, 0.3, 0.2, 1e-2, 1e-3, 1e-9, -1.0])
def test_the_share_is_the_largest_power_of_two_that_does_not_raise_the_value(least):
    # (t - least)^2 does not exceed least^2 for t <= 2 least.
    share = shares(lambda t: (t - least).square(), torch.tensor([least**2], dtype=torch.float64))
    fitting = [2.0**-k for k in range(HALVINGS + 1) if (2.0**-k - least) ** 2 <= least**2]
    assert float(share) == (fitting[0] if fitting else 0)


def test_parts_do_not_see_each_other_and_not_a_number_is_no_improvement():
    before = torch.ones(3, dtype=torch.float64)

    def value_at(t):
        return torch.stack([t[0] * torch.nan, t[1] * 0 + 1, (1 - 3 * t[2]).square()])

    assert shares(value_at, before).tolist() == [0, 1, 0.5]
