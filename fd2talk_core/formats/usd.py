"""Motion as a USD file, for Maya, Houdini, Omniverse and Blender: blendshapes and bones, as in the GLB.

Written with Pixar's own library (the package ``usd-core``), which is asked for when a file is written and is
no dependency of the pack. Lengths are metres, y is up; time codes are frames. Lids may go past each other, as
in the GLB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checks import checked
from ..errors import FD2TalkError
from ..face.model import FaceModel
from ..face.skinning import head_weight
from ..face.smoothing import smooth_deformations
from ..files import replacing
from ..motion.coefficients import CoefficientSequence
from ..motion.preview import whole_motion
from .defaults import USD_ENDINGS
from .gltf import HEAD, METRES, SHOULDERS, STILL, quaternions


@checked
@torch.no_grad()
def write_usd(
    path: Path | str,
    face_model: FaceModel,
    expression: CoefficientSequence | None,
    pose: CoefficientSequence | None,
    *,
    identity: Tensor | None = None,
    smoothing: float = 0.0,
) -> None:
    """The face model, moving: as :func:`~fd2talk_core.formats.gltf.write_glb`, in USD's skeleton schema.

    Args:
        path: ends in ``.usdc`` or ``.usd`` (binary), or ``.usda`` (text).

    Raises:
        FD2TalkError: as that, and when ``usd-core`` is not installed.
    """
    motion, alpha, betas, poses = whole_motion(face_model, expression, pose, identity)
    try:
        from pxr import Gf, Sdf, Usd, UsdGeom, UsdSkel, Vt
    except ImportError as error:
        raise FD2TalkError("USD files need the package usd-core: pip install usd-core.") from error
    kind = "usda" if Path(path).suffix.lower() == USD_ENDINGS[-1] else "usdc"
    layer = Sdf.Layer.CreateAnonymous(f".{kind}")
    stage = Usd.Stage.Open(layer)
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetTimeCodesPerSecond(motion.fps)
    stage.SetFramesPerSecond(motion.fps)
    stage.SetStartTimeCode(0)
    stage.SetEndTimeCode(motion.num_frames - 1)
    root = UsdSkel.Root.Define(stage, "/Person")
    stage.SetDefaultPrim(root.GetPrim())
    joints = [SHOULDERS, f"{SHOULDERS}/{HEAD}"]
    skeleton = UsdSkel.Skeleton.Define(stage, "/Person/Skeleton")
    still = Vt.Matrix4dArray([Gf.Matrix4d(1.0)] * 2)
    skeleton.CreateJointsAttr(joints)
    skeleton.CreateBindTransformsAttr(still)
    skeleton.CreateRestTransformsAttr(still)

    moved = smooth_deformations(face_model, smoothing)
    rest = face_model(alpha[None], torch.zeros(1, face_model.expression_dim))[0]
    mesh = UsdGeom.Mesh.Define(stage, "/Person/Face")
    mesh.CreatePointsAttr(_vectors(Vt, rest * METRES))
    mesh.CreateFaceVertexCountsAttr([3] * len(face_model.triangles))
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray(face_model.triangles.flatten().tolist()))
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    binding = UsdSkel.BindingAPI.Apply(mesh.GetPrim())
    binding.CreateSkeletonRel().SetTargets([skeleton.GetPath()])
    weight = head_weight(face_model)
    shares = torch.stack([1 - weight, weight], dim=1).flatten().tolist()
    binding.CreateJointIndicesPrimvar(False, 2).Set(Vt.IntArray([0, 1] * face_model.num_vertices))
    binding.CreateJointWeightsPrimvar(False, 2).Set(Vt.FloatArray(shares))
    names = list(face_model.expression_names) or [f"shape{n}" for n in range(face_model.expression_dim)]
    targets = []
    for name, offsets in zip(names, moved.expression_basis, strict=True):
        rows = (offsets.abs().amax(dim=1) > STILL).nonzero()[:, 0]
        shape = UsdSkel.BlendShape.Define(stage, f"/Person/Face/{name}")
        shape.CreateOffsetsAttr(_vectors(Vt, offsets[rows] * METRES))
        shape.CreatePointIndicesAttr(Vt.IntArray(rows.tolist()))
        targets.append(shape.GetPath())
    binding.CreateBlendShapesAttr(names)
    binding.CreateBlendShapeTargetsRel().SetTargets(targets)

    animation = UsdSkel.Animation.Define(stage, "/Person/Motion")
    animation.CreateJointsAttr(joints)
    animation.CreateScalesAttr(Vt.Vec3hArray([Gf.Vec3h(1, 1, 1)] * 2))
    animation.CreateBlendShapesAttr(names)
    UsdSkel.BindingAPI.Apply(skeleton.GetPrim()).CreateAnimationSourceRel().SetTargets([animation.GetPath()])
    places, turns = animation.CreateTranslationsAttr(), animation.CreateRotationsAttr()
    weights = animation.CreateBlendShapeWeightsAttr()
    shifts, rotations = (poses[:, 3:] * METRES).tolist(), quaternions(poses[:, :3]).tolist()
    for frame, (shift, (x, y, z, w), beta) in enumerate(zip(shifts, rotations, betas.tolist(), strict=True)):
        places.Set(Vt.Vec3fArray([Gf.Vec3f(0, 0, 0), Gf.Vec3f(*shift)]), frame)
        turns.Set(Vt.QuatfArray([Gf.Quatf(1), Gf.Quatf(w, x, y, z)]), frame)
        weights.Set(Vt.FloatArray(beta), frame)
    with replacing(path) as partial:
        # Pixar's writer tells a file's kind by its ending
        whole = partial.with_name(f"{partial.name}.{kind}")
        try:
            layer.Export(str(whole))
            partial.write_bytes(whole.read_bytes())
        finally:
            whole.unlink(missing_ok=True)


def _vectors(Vt: Any, places: Tensor) -> Any:
    return Vt.Vec3fArray.FromNumpy(places.contiguous().float().numpy())
