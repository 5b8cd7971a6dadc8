"""Rotations: Euler angles, matrices, axis and angle, and what lies between two poses."""

from __future__ import annotations

import torch
from torch import Tensor


def interpolate_pose(start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    """Poses between two poses: the rotation along the shortest arc, the translation along the line.

    Args:
        start, end: ``[F, 6]``.
        weight: ``[F, 1]``, 0 gives ``start`` and 1 gives ``end``.
    """
    turn = rotation_matrix(start[:, :3]).mT @ rotation_matrix(end[:, :3])
    partial = axis_angle_to_matrix(matrix_to_axis_angle(turn) * weight)
    rotation = euler_angles(rotation_matrix(start[:, :3]) @ partial)
    return torch.cat([rotation, torch.lerp(start[:, 3:], end[:, 3:], weight)], dim=1)


def matrix_to_axis_angle(rotation: Tensor) -> Tensor:
    """``[..., 3, 3]`` to ``[..., 3]``, radians (kornia's conversion)."""
    from kornia.geometry.conversions import rotation_matrix_to_axis_angle

    return rotation_matrix_to_axis_angle(rotation.contiguous())


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """``[..., 3]`` radians to ``[..., 3, 3]`` (kornia's conversion)."""
    from kornia.geometry.conversions import axis_angle_to_rotation_matrix

    return axis_angle_to_rotation_matrix(axis_angle.contiguous())


def upright(pose: Tensor) -> Tensor:
    """``[2]``: the way from a head's chin to its crown in a picture, whose v goes down, by p ``[6]``."""
    up = rotation_matrix(pose[None, :3])[0, :2, 1] * pose.new_tensor([1.0, -1.0])
    return up / up.norm().clamp_min(1e-6)


def rotation_matrix(angles: Tensor) -> Tensor:
    """``[..., 3]`` pitch, yaw, roll in radians to R = Rx(pitch) Ry(yaw) Rz(roll), ``[..., 3, 3]``."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = (
        (cy * cz, -cy * sz, sy),
        (sx * sy * cz + cx * sz, cx * cz - sx * sy * sz, -sx * cy),
        (sx * sz - cx * sy * cz, cx * sy * sz + sx * cz, cx * cy),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def euler_angles(rotation: Tensor) -> Tensor:
    """The inverse of :func:`rotation_matrix`: yaw in -90°..90°, at whose ends roll is taken as 0."""
    yaw = rotation[..., 0, 2].clamp(-1, 1).asin()
    locked = rotation[..., 0, 2].abs() > 1 - 1e-6
    pitch = torch.where(
        locked,
        torch.atan2(rotation[..., 2, 1], rotation[..., 1, 1]),
        torch.atan2(-rotation[..., 1, 2], rotation[..., 2, 2]),
    )
    roll = torch.where(locked, torch.zeros_like(yaw), torch.atan2(-rotation[..., 0, 1], rotation[..., 0, 0]))
    return torch.stack([pitch, yaw, roll], dim=-1)


def mean_rotation(rotations: Tensor) -> Tensor:
    """``[3, 3]``: the rotation nearest to all of ``[F, 3, 3]``, which is their mean matrix made one again.

    A reflection is never nearest while all of them face one half space.
    """
    left, _, right = torch.linalg.svd(rotations.mean(dim=0))
    sign = torch.ones_like(left[0])
    sign[2] = torch.det(left @ right).sign()
    return (left * sign) @ right
