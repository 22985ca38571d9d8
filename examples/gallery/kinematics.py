"""Inverse kinematics of a robot arm for four thousand poses at once.

Joint angles are implicit in the pose of the hand: position and orientation as a function of six angles
must equal the target. The wrist of this arm is offset, so that its axes do not meet and the closed form
for spherical wrists (Pieper 1968), which is the simpler method for an arm that has one, does not apply.
`root` with `batch_dims=1` solves each pose as a system of its own, from a guess within 0.3 of the angles;
`batched_args` lets it drop the poses that are solved.

The derivative `∂q/∂pose` is the inverse of the arm's Jacobian and gives Yoshikawa's manipulability
(1985), here checked by the Jacobian itself. The same implicit function has the derivative in the arm's
dimensions: how far each joint must turn where a link is a millimetre too long. Near singular poses it
grows as the manipulability falls.
"""

import time

import implicitly
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

# Denavit & Hartenberg 1955: lengths and offsets (metres), and twists of the six joints.
LENGTH = torch.tensor([0.1, 0.5, 0.1, 0.0, 0.08, 0.0], dtype=torch.float64)
OFFSET = torch.tensor([0.4, 0.0, 0.0, 0.45, 0.0, 0.1], dtype=torch.float64)
TWIST = torch.tensor([1, 0, 1, -1, 1, 0], dtype=torch.float64) * torch.pi / 2
Pose = tuple[Tensor, Tensor]  # position `(..., 3)` and orientation `(..., 3, 3)`


def hand(q: Tensor, length: Tensor) -> Pose:
    """Where the hand is at the angles `q`, `(..., 6)`."""
    position, frame = torch.zeros_like(q[..., :3]), torch.eye(3, dtype=q.dtype)
    for i in range(6):
        c, s, zero, one = q[..., i].cos(), q[..., i].sin(), q[..., i] * 0, q[..., i] * 0 + 1
        ct, st = TWIST[i].cos(), TWIST[i].sin()
        shift = torch.stack((length[..., i] * c, length[..., i] * s, OFFSET[i] * one), dim=-1)
        rows = (c, -s * ct, s * st, s, c * ct, -c * st, zero, st * one, ct * one)
        position = position + (frame @ shift.unsqueeze(-1)).squeeze(-1)
        frame = frame @ torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
    return position, frame


def miss(q: Tensor, position: Tensor, frame: Tensor, length: Tensor, error: Tensor) -> Tensor:
    at, turned = hand(q, length)
    turn = turned @ frame.mT  # the identity at the target
    skew = [turn[..., i, k] - turn[..., k, i] for i, k in ((2, 1), (0, 2), (1, 0))]
    trace = turn.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
    turned_by = 2 * torch.stack(skew, dim=-1) / (1 + trace)  # 2 tan(angle / 2), along the axis
    return torch.cat((at - position, turned_by), dim=-1) - error


def draw(pose: Pose, manipulability: Tensor, turn: Tensor) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3))
    x, y, z = pose[0][::8].unbind(1)
    dots = left.scatter(torch.hypot(x, y), z, 3, manipulability[::8].log10())
    left.set(title="Manipulability, log10", xlabel="distance from the axis, m", ylabel="height, m")
    figure.colorbar(dots, ax=left)
    right.loglog(manipulability[::8], turn[::8], ".", markersize=2)
    right.set(title="Joint error for 1 mm in the links", xlabel="manipulability", ylabel="degrees")
    return figure


def main() -> Figure:
    torch.manual_seed(0)
    middle = torch.tensor([0, 1, 0, 0, 1.3, 0])
    truth = middle + 2.4 * (torch.rand(4000, 6, dtype=torch.float64) - 0.5)
    guess = truth + 0.6 * (torch.rand_like(truth) - 0.5)
    pose = hand(truth, LENGTH)
    exact = torch.zeros(6, dtype=torch.float64)

    def solved(error: Tensor, length: Tensor) -> implicitly.Solution:
        return implicitly.root(
            miss, guess, *pose, length, error,
            batch_dims=1, batched_args=(True, True, False, False),
            gradient=implicitly.Exact(solver=implicitly.DenseLU()),
        )  # fmt: skip

    begin = time.perf_counter()
    solution = solved(exact, LENGTH)
    q = solution.value
    seconds = time.perf_counter() - begin
    print(
        f"{solution.converged.sum()} of {len(q)} poses solved, {len(q) / seconds:.0f} in a second"
    )
    same = (q - truth).abs().amax(1) < 1e-6
    print(
        f"{same.float().mean():.1%} with the angles that made the pose, the others with different ones"
    )

    derivative = torch.func.jacfwd(lambda *given: solved(*given).value, argnums=(0, 1))
    by_error, by_length = derivative(exact, LENGTH)
    jacobian = torch.func.vmap(torch.func.jacrev(miss), in_dims=(0, 0, 0, None, None))
    J = jacobian(q, *pose, LENGTH, exact)
    manipulability = torch.linalg.det(J).abs()
    error = (manipulability * torch.linalg.det(by_error).abs() - 1).abs()
    print(f"1 / |det ∂q/∂pose| and |det J| differ by {error.median():.1e} (median of the poses)")
    turn = torch.rad2deg(by_length * 1e-3).norm(dim=(1, 2))
    print(f"a millimetre in every link turns the joints by {turn.median():.2f} degrees (median), "
          f"{turn.quantile(0.99):.1f} (one pose in a hundred)")  # fmt: skip
    return draw(pose, manipulability, turn)


if __name__ == "__main__":
    main().savefig("kinematics.png")
