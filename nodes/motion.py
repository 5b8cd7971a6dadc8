"""ExpDiT and PoseDiT: from what is heard to how the face and the head move (FD2Talk Sec. 3.2)."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..fd2talk_core.motion.defaults import NEUTRAL, STYLES
from . import host
from .checkpoints import CheckpointNode
from .types import Expression, Features, PortraitReference, Pose, schema


class _MotionNode(CheckpointNode):
    """What the two share."""

    SEED_TOOLTIP: str
    INTENSITY_TOOLTIP: str

    @classmethod
    def motion_inputs(cls) -> list[io.Input]:
        return [
            Features.Input("features", tooltip="What the recording says, from Load Audio (wav2vec 2.0)."),
            cls.checkpoint_input(
                f"The transformer's weights: 'tiny' ships with the pack, others lie in "
                f"models/fd2talk/{cls.NETWORK}."
            ),
            io.Int.Input(
                "seed",
                default=0,
                min=0,
                max=0xFFFFFFFFFFFFFFFF,
                control_after_generate=True,
                tooltip=cls.SEED_TOOLTIP,
            ),
            io.Int.Input(
                "steps",
                default=0,
                min=0,
                max=1000,
                tooltip="Denoising steps; 0 takes what the checkpoint recommends. The paper takes 50.",
            ),
            io.Float.Input(
                "guidance",
                default=1.0,
                min=0.0,
                max=10.0,
                step=0.1,
                tooltip="How strongly the sound drives the motion. 1 is the network's own; more "
                "exaggerates and takes twice the time.",
            ),
            io.Float.Input(
                "intensity",
                default=1.0,
                min=0.0,
                max=3.0,
                step=0.05,
                tooltip=cls.INTENSITY_TOOLTIP,
            ),
            PortraitReference.Input(
                "reference",
                optional=True,
                tooltip="A portrait to start from: the motion then belongs to this face. Leave it open to "
                "use one motion with several portraits.",
            ),
        ]

    @classmethod
    def execute(
        cls,
        features,
        checkpoint,
        seed,
        steps,
        guidance,
        intensity,
        reference=None,
        style=NEUTRAL,
        style_strength=1.0,
    ) -> io.NodeOutput:
        from ..fd2talk_core.motion.sampling import sample_motion

        return io.NodeOutput(
            sample_motion(
                host.load_network(cls.NETWORK, checkpoint),
                features,
                kind=cls.NETWORK,
                seed=seed,
                steps=steps or None,
                guidance=guidance,
                intensity=intensity,
                portrait=None if reference is None else reference.face,
                style=style,
                style_strength=style_strength,
                callback=host.Progress(),
            )
        )


class ExpDiT(_MotionNode):
    NETWORK = "expression"
    SEED_TOOLTIP = "Another seed gives another performance of the same words."
    INTENSITY_TOOLTIP = "Scale of the expression: 0 is a resting face, 1 the network's own, 2 twice as much."

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ExpDiT",
            search_aliases=["talking head", "lip sync", "facial expression", "ARKit"],
            display_name="Expression from Audio (ExpDiT)",
            category="FD2Talk/motion",
            description="A diffusion transformer that hears the recording and moves the face: 52 named ARKit "
            "coefficients a frame.",
            inputs=[
                *cls.motion_inputs(),
                io.Combo.Input(
                    "style",
                    options=list(STYLES),
                    default=NEUTRAL,
                    optional=True,
                    tooltip="The mood that the face speaks in. neutral: the network's own; the others need "
                    "weights that have learned them, as 'tiny' has.",
                ),
                io.Float.Input(
                    "style_strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="How much of that mood: 0 is neutral, 1 all of it.",
                ),
            ],
            outputs=[
                Expression.Output(
                    "expression",
                    display_name="expression",
                    tooltip="The face's motion, one row of coefficients a frame.",
                )
            ],
        )


class PoseDiT(_MotionNode):
    NETWORK = "pose"
    SEED_TOOLTIP = "Another seed gives another way of moving the head."
    INTENSITY_TOOLTIP = (
        "Scale of the head motion about its mean: 0 holds the head still, 1 is the network's own."
    )

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="PoseDiT",
            search_aliases=["talking head", "head motion"],
            display_name="Head Pose from Audio (PoseDiT)",
            category="FD2Talk/motion",
            description="A diffusion transformer that hears the recording and moves the head: pitch, yaw, "
            "roll and position a frame.",
            inputs=cls.motion_inputs(),
            outputs=[
                Pose.Output(
                    "pose",
                    display_name="pose",
                    tooltip="The head's motion: three angles and three shifts a frame.",
                )
            ],
        )


NODES = [ExpDiT, PoseDiT]
