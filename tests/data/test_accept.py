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
