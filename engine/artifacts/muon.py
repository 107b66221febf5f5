"""Muon for matrices and Adam for the rest, with fp32 master weights of bf16 parameters. It does not know the model.

Muon: Jordan et al. 2024, momentum orthogonalised by five Newton-Schulz steps.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(stack: Tensor, steps: int = 5) -> Tensor:
    """Roughly replace the singular values of every matrix of ``stack`` [count, rows, columns] by one.

    The iteration only needs singular values near one, so it runs in bf16, as Jordan et al. do.
    """
    a, b, c = NEWTON_SCHULZ
    tall = stack.shape[1] > stack.shape[2]
    x = stack.transpose(1, 2) if tall else stack
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    orthogonal: Tensor = x.to(stack.dtype)
    return orthogonal.transpose(1, 2) if tall else orthogonal


class MasterWeights:
    """fp32 copies of the parameters; ``publish`` rounds them back into the model."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.masters = [parameter.detach().float().clone() for parameter in self.parameters]

    def publish(self) -> None:
        """Write the masters into the parameters and drop the gradients."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.data.copy_(master)
            parameter.grad = None


class Muon(MasterWeights):
    """Momentum SGD whose update of every matrix is orthogonalised; matrices of one shape go together."""

    def __init__(self, parameters: Iterable[nn.Parameter], momentum: float = 0.95) -> None:
        super().__init__(parameters)
        self.momentum = momentum
        self.velocities = [torch.zeros_like(master) for master in self.masters]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One update from the parameters' gradients."""
        groups: dict[torch.Size, list[int]] = defaultdict(list)
        for index, master in enumerate(self.masters):
            groups[master.shape].append(index)
        for shape, members in groups.items():
            update = orthogonalise(torch.stack([self._nesterov(index) for index in members]))
            scale = learning_rate * max(1.0, shape[0] / shape[1]) ** 0.5
            for index, change in zip(members, update, strict=True):
                self.masters[index].sub_(change, alpha=scale)
        self.publish()

    def _nesterov(self, index: int) -> Tensor:
        gradient = self.parameters[index].grad
        assert gradient is not None
        gradient = gradient.float()
        velocity = self.velocities[index].mul_(self.momentum).add_(gradient)
        return gradient + self.momentum * velocity

    def state(self) -> dict[str, Tensor]:
        """Tensors to resume from, by name."""
        named = {f"muon.master.{index}": tensor for index, tensor in enumerate(self.masters)}
        return named | {f"muon.velocity.{index}": tensor for index, tensor in enumerate(self.velocities)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up the tensors of ``state``."""
        for index in range(len(self.masters)):
            self.masters[index].copy_(state[f"muon.master.{index}"])
            self.velocities[index].copy_(state[f"muon.velocity.{index}"])
        self.publish()


class Adam(MasterWeights):
    """Adam (Kingma and Ba 2014) on fp32 masters."""

    def __init__(self, parameters: Iterable[nn.Parameter], betas: tuple[float, float] = (0.9, 0.98)) -> None:
        super().__init__(parameters)
        self.betas = betas
        self.count = torch.zeros(1)
        self.means = [torch.zeros_like(master) for master in self.masters]
        self.squares = [torch.zeros_like(master) for master in self.masters]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One update from the parameters' gradients."""
        self.count += 1
        first, second = (1 - beta ** self.count.item() for beta in self.betas)
        for index, parameter in enumerate(self.parameters):
            assert parameter.grad is not None
            gradient = parameter.grad.float()
            mean = self.means[index].lerp_(gradient, 1 - self.betas[0])
            square = self.squares[index].lerp_(gradient.square(), 1 - self.betas[1])
            self.masters[index].addcdiv_(mean / first, (square / second).sqrt() + 1e-10, value=-learning_rate)
        self.publish()

    def state(self) -> dict[str, Tensor]:
        """Tensors to resume from, by name."""
        named = {"adam.count": self.count}
        for kind, tensors in (("master", self.masters), ("mean", self.means), ("square", self.squares)):
            named |= {f"adam.{kind}.{index}": tensor for index, tensor in enumerate(tensors)}
        return named

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up the tensors of ``state``."""
        self.count.copy_(state["adam.count"])
        for kind, tensors in (("master", self.masters), ("mean", self.means), ("square", self.squares)):
            for index, tensor in enumerate(tensors):
                tensor.copy_(state[f"adam.{kind}.{index}"])
        self.publish()
