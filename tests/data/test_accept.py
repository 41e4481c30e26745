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
