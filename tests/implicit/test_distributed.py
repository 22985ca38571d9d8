"""Data-parallel training by two processes gives the gradients of one."""

import os
import socket

import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from implicitly import ImplicitLayer, Stopping
from torch import nn
from torch.nn.parallel import DistributedDataParallel

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="no torch.distributed")


def layer() -> ImplicitLayer:
    torch.manual_seed(0)
    linear = nn.Linear(4, 4, dtype=torch.float64)
    nn.init.orthogonal_(linear.weight, gain=0.5)

    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear

        def forward(self, z, x):
            return torch.tanh(self.linear(z) + x)

    return ImplicitLayer(Cell(), stopping=Stopping(rtol=1e-12))


def inputs() -> torch.Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def worker(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    model = DistributedDataParallel(layer())
    model(inputs()[3 * rank : 3 * rank + 3]).square().mean().backward()
    if rank == 0:
        gradients = {name: p.grad for name, p in model.module.named_parameters()}
        torch.save(gradients, os.path.join(folder, "gradients.pt"))
    distributed.destroy_process_group()


def test_two_processes_give_the_gradients_of_one(tmp_path):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    multiprocessing.spawn(worker, (port, str(tmp_path)), nprocs=2)
    together = torch.load(tmp_path / "gradients.pt")
    alone = layer()
    alone(inputs()).square().mean().backward()
    for name, parameter in alone.named_parameters():
        # The same sums in another order: rounding, and the solves' tolerance of 1e-12.
        torch.testing.assert_close(together[name], parameter.grad, rtol=1e-10, atol=1e-12)
