"""What tests of implicit functions share."""

import pytest
import torch


@pytest.fixture
def seeded() -> None:
    torch.manual_seed(0)
