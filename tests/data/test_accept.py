import numpy as np
import pytest
import torch

from whydeep.core.errors import DataError
from whydeep.data.accept import as_data


@pytest.mark.parametrize(
    "source", [(torch.empty(0, 3), torch.empty(0, dtype=torch.long)), (np.empty((0, 3)), np.empty(0))]
)
def test_a_set_without_samples_is_refused(source):
    with pytest.raises(DataError, match="there are no samples; give at least one"):
        as_data(source)


def test_a_loader_without_batches_is_refused():
    with pytest.raises(DataError, match="no batch"):
        as_data(iter(()))


def test_a_batch_that_is_no_pair_is_refused():
    batch = (torch.zeros(2, 3), torch.zeros(2).long(), torch.zeros(2))
    with pytest.raises(DataError, match=r"a batch of type tuple is no pair \(x, y\); give pairs"):
        as_data([batch, batch, batch])


def test_reading_a_loader_leaves_the_global_generator_alone():
    pairs = torch.utils.data.TensorDataset(torch.arange(6.0)[:, None], torch.tensor([0, 1] * 3))
    before = torch.get_rng_state()
    read = as_data(torch.utils.data.DataLoader(pairs, batch_size=4, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(read.x[:, 0].tolist()) == list(range(6))  # shuffled, each once, beside its own target
    assert torch.equal(read.y, read.x[:, 0].long() % 2)
