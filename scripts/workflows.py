"""``python scripts/workflows.py``: write the graphs of ``workflows/`` and ``subgraphs/`` as described here.

A graph is written as the page opens it (``workflows/NAME.json``) and as the API takes it
(``workflows/api/NAME.json``), from one description and the running host's own ``/object_info``. Run it again
after a node's sockets or widgets have changed; a test holds the files to what this writes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from scripts.comfyui import PACK_NAME, ComfyUIServer  # noqa: E402
from scripts.environment import ROOT, prepare, say  # noqa: E402
from scripts.graphs import SIDE_COLOR, Graph, Group, Node, Open, Wire  # noqa: E402

BLUEPRINT = "Talking portrait"
CONSENT = "Use portraits and voices of people who agreed to it, and say that the video is generated."
EXAMPLES = """The files named `fd2talk_…` are examples, which the pack puts into ComfyUI's `input` folder:
choose or upload your own in their place."""
SOUND = """*Decode Video* keeps the sound to its last sample and needs no more memory for a longer clip. The
host's *Create Video* cuts the sound to whole frames and holds every picture; it is for graphs that change the
pictures of *Decode Frames* first."""
ROOM = {
    "LoadImage": (0, 320),
    "LoadVideo": (0, 370),
    "LoadAudio": (0, 140),
    "LoadAudioWav2Vec": (0, 190),
    "FD2TalkUNetSampler": (0, 480),
    "SaveVideo": (0, 400),
    "FD2TalkLoadCoefficients": (0, 320),
    "FD2TalkCoefficientsFromVideo": (0, 420),
    "FD2TalkRetime": (0, 330),
    "FD2TalkScaleMotion": (0, 410),
    "FD2TalkAddBlinks": (0, 380),
    "FD2TalkSmoothMotion": (0, 240),
    "Preview3D": (410, 500),
    "FD2TalkLipKeys": (380, 470),
}
"""Least width and height of nodes that show pictures, videos or curves once they have run."""
GROWN = {"Coeff3DMMPreview": (410, 734)}
PACKS = {PACK_NAME: "fd2talk"}
"""As pyproject.toml names the pack to the registry."""
NEWER = {"SaveVideo": {"format.codec": "auto"}}
"""Widgets of the host's own nodes that it has got since; `comfy workflow validate` asks for them."""
NOTES = {
    "talking_portrait": (
        "Talking portrait",
        """
1. Choose a portrait and a recording.
2. Press **Run**.

The motion preview is ready long before the frames are. Set another **seed** in ExpDiT or PoseDiT until you
like it; only what depends on it runs again.
""",
    ),
    "custom_pose": (
        "Your own head motion",
        """
The face follows the voice, the head follows a **file**: one that Save Motion wrote, an iPhone's Live Link
Face CSV, or SadTalker's .mat.

Retime Motion gives it the length and the frame rate of the speech; *rotation* and *shift* in Scale Motion
say how much of it is used. When another file is chosen, the portrait and the expression are not made again.
""",
    ),
    "motion_preview": (
        "Motion without a portrait",
        """
No frame is rendered here, so a change is seen within seconds: try seeds, **intensity** and the tools under
*FD2Talk/sequences*, and watch the mesh speak.

Save Motion keeps what you like; load it in the graph `custom_pose`, or in any other.
""",
    ),
    "head_animation": (
        "A voice moves a head",
        """
A recording becomes an animated **GLB** in ComfyUI's `output/fd2talk` folder: no portrait, no frames, any
length.

**In Blender:** set the scene to 25 frames per second, then *File > Import > glTF 2.0*. Every ARKit name is a
shape key, and a bone turns the head. *Save Moving Head* writes a PLY or OBJ file a frame as well.

To give the head a person's face shape, connect *Encode Reference* to both nodes on the right.
""",
    ),
    "animator_lip_keys": (
        "An animator's lip keys",
        """
The voice moves the face; at a few moments the **keys** say where the lips shall be. Each key is met within
1 % of the mouth's width, and fades into the voice over *reach* seconds. The node tells how closely.

A key is `{"time": 2.5, "lower": [0, -0.45]}`: offsets from the shut mouth in mouth's widths, y up. Write keys
into the node (and set *keys_file* to none), edit the example file in ComfyUI's `input` folder, or connect a
video of a **singer**, whose lips are then followed.

Wire *expression* to the sampler of `talking_portrait` to render it.
""",
    ),
    "upscale_and_restore": (
        "Larger and sharper",
        """
The face's square crop is made twice as large (256 → 512 px) by *lanczos*, which needs no file.

**With a model:** put a face restorer (GFPGAN or RestoreFormer, made for faces of 512 px) or any upscaler
(Real-ESRGAN, SPAN, ...) into `models/upscale_models`. Choose it in the first purple node, select both purple
nodes and press **Ctrl+B**. While they are purple they are stepped over, and nothing asks for a file. An
upscaler enlarges once more: set *scale_by* to 1 then.

For the whole picture instead of the crop, set *paste_back* in Decode Frames.

An upscaler takes pictures, so this graph ends in the host's *Create Video*, which cuts the last fraction of a
frame off the sound and holds every picture: for long clips use the graph `talking_portrait`.
""",
    ),
    "driving_video": (
        "The head of another video",
        """
The face follows the voice, the head follows a person in a **driving video**: another recording of somebody
talking, seen from the front. Its sound and its face are not used; wire *expression* as well to take both.

Retime Motion plays it there and back until the speech ends. Frames that show no face are filled from those
before and after; *filled* says how many.
""",
    ),
    "dub_video": (
        "A video speaks new words",
        """
1. Choose a video of somebody who talks, seen from the front, and the new recording.
2. Press **Run**.

Head, eyes, light and background stay as they were filmed; only the lower face is made anew. The video and
the speech may differ in length: *longer_speech* and *shorter_speech* say what happens then. Frames in which
the mouth cannot be seen (a profile, a hand, another shot) stay as they are; the node says which.
""",
    ),
    "two_people": (
        "Two people in one picture",
        """
The left person speaks first, the right one answers. Each has a lane of the same length: where the other
speaks, that recording is turned down to nothing.

Faces are counted from left to right. The left person's video is the **background** of the right one's, so
that both move in one picture; the sound of both is given to the last one.

For two lanes that you have already (a podcast), load them in place of *Lane, left* and *Lane, right*.
""",
    ),
    "batch_of_voices": (
        "Many voices, one portrait",
        """
Made to be posted once a recording. From the pack's folder, while ComfyUI runs:

```
python workflows/render_folder.py \\
    portrait.png voices/ -o videos/
```

It uploads the portrait once and then each recording, posts `workflows/api/batch_of_voices.json` with that
file's name, and fetches the MP4s. The portrait is encoded for the first voice only. Frames stream into the
file, so recordings may be long.
""",
    ),
}
"""Title and text of the note in each graph, by the graph's name."""


def new_graph(name: str, object_info: dict[str, dict]) -> Graph:
    """An empty graph that knows what the host does not tell."""
    return Graph(name, object_info, ROOM, GROWN, packs=PACKS, newer=NEWER)


def portrait(graph: Graph) -> Node:
    return graph.node("LoadImage", "Portrait", image="fd2talk_portrait.png")


def voice(graph: Graph) -> Node:
    return graph.node("LoadAudioWav2Vec", "Voice", audio_file="fd2talk_speech.wav")


def saved(graph: Graph, video: Wire) -> Node:
    """An MP4 in the output folder, shown in the page."""
    return graph.node("SaveVideo", video=video, filename_prefix=f"fd2talk/{graph.name}")


def decoded_and_saved(graph: Graph, latents: Node, reference: Node, heard: Node) -> list[Node]:
    """Latents and sound as an MP4: with every sample of the sound, and without holding the frames."""
    video = graph.node(
        "FD2TalkDecodeVideo",
        samples=latents["latents"],
        reference=reference["reference"],
        audio=heard["audio"],
    )
    return [video, saved(graph, video["video"])]


def talking_portrait(graph: Graph) -> None:
    picture, heard = portrait(graph), voice(graph)
    reference = graph.node("EncodeReference", image=picture["IMAGE"])
    expression = graph.node("ExpDiT", features=heard["features"])
    pose = graph.node("PoseDiT", features=heard["features"])
    motion = {"expression": expression["expression"], "pose": pose["pose"]}
    preview = graph.node("Coeff3DMMPreview", **motion, audio=heard["audio"])
    latents = graph.node("FD2TalkUNetSampler", reference=reference["reference"], **motion)
    video = decoded_and_saved(graph, latents, reference, heard)
    note = graph.note(*NOTES[graph.name], SOUND, EXAMPLES, CONSENT)
    graph.lay_out(
        [
            Group("1 · Who speaks", [[picture], [reference]]),
            Group("2 · What is said, and how it moves", [[heard, note], [expression, pose]]),
        ],
        [Group("3 · The frames", [[latents]]), Group("Look at the motion first", [[preview]], SIDE_COLOR)],
        [Group("4 · The video", [video])],
    )


def custom_pose(graph: Graph) -> None:
    picture, heard = portrait(graph), voice(graph)
    reference = graph.node("EncodeReference", image=picture["IMAGE"])
    expression = graph.node("ExpDiT", features=heard["features"])
    file = graph.node(
        "FD2TalkLoadCoefficients", "Head motion from a file", motion_file="fd2talk_nods_and_turns.json"
    )
    pose = graph.node(
        "FD2TalkRetime",
        "As long as the speech",
        pose=file["pose"],
        features=heard["features"],
        method="loop",
    )
    size = graph.node("FD2TalkScaleMotion", "How much the head moves", pose=pose["pose"])
    motion = {"expression": expression["expression"], "pose": size["pose"]}
    preview = graph.node("Coeff3DMMPreview", **motion, audio=heard["audio"])
    latents = graph.node("FD2TalkUNetSampler", reference=reference["reference"], **motion)
    video = decoded_and_saved(graph, latents, reference, heard)
    note = graph.note(*NOTES[graph.name], SOUND, EXAMPLES, CONSENT)
    graph.lay_out(
        [
            Group("1 · Who speaks", [[picture], [reference]]),
            Group("2 · What is said", [[heard], [expression]]),
            Group("About this graph", [[note]], SIDE_COLOR),
        ],
        [Group("3 · How the head moves", [[file, pose, size]])],
        [Group("4 · The frames", [[latents]]), Group("Look at the motion first", [[preview]], SIDE_COLOR)],
        [Group("5 · The video", [video])],
    )


def motion_preview(graph: Graph) -> None:
    heard = voice(graph)
    expression = graph.node("ExpDiT", features=heard["features"])
    pose = graph.node("PoseDiT", features=heard["features"])
    blinks = graph.node("FD2TalkAddBlinks", expression=expression["expression"])
    calm = graph.node("FD2TalkSmoothMotion", "Calmer head", pose=pose["pose"], seconds=0.12)
    motion = {"expression": blinks["expression"], "pose": calm["pose"]}
    preview = graph.node("Coeff3DMMPreview", **motion, audio=heard["audio"])
    file = graph.node("FD2TalkSaveCoefficients", **motion, filename_prefix="fd2talk/motion")
    note = graph.note(*NOTES[graph.name], EXAMPLES)
    graph.lay_out(
        [Group("1 · What is said", [[heard, note]])],
        [Group("2 · How face and head move", [[expression, pose]])],
        [Group("3 · Edited by hand", [[blinks, calm]])],
        [Group("4 · Look, and keep it", [[preview, file]], SIDE_COLOR)],
    )


def head_animation(graph: Graph) -> None:
    heard = voice(graph)
    expression = graph.node("ExpDiT", features=heard["features"])
    pose = graph.node("PoseDiT", features=heard["features"])
    motion = {"expression": expression["expression"], "pose": pose["pose"]}
    preview = graph.node("Coeff3DMMPreview", **motion, audio=heard["audio"], view="three-quarter")
    file = graph.node("FD2TalkSaveMesh", **motion)
    shown = graph.node("Preview3D", "Look at it from all sides", model_file=file["saved as"])
    note = graph.note(*NOTES[graph.name], EXAMPLES)
    graph.lay_out(
        [Group("1 · What is said", [[heard, note]])],
        [Group("2 · How face and head move", [[expression, pose]])],
        [
            Group("3 · The head as a file", [[file, shown]]),
            Group("Look at the motion", [[preview]], SIDE_COLOR),
        ],
    )


def animator_lip_keys(graph: Graph) -> None:
    heard = voice(graph)
    expression = graph.node("ExpDiT", features=heard["features"])
    pose = graph.node("PoseDiT", features=heard["features"])
    keyed = graph.node(
        "FD2TalkLipKeys", expression=expression["expression"], keys_file="fd2talk_lip_keys.json"
    )
    motion = {"expression": keyed["expression"], "pose": pose["pose"]}
    preview = graph.node("Coeff3DMMPreview", **motion, audio=heard["audio"])
    file = graph.node("FD2TalkSaveMesh", **motion, filename_prefix="fd2talk/keyed_head")
    note = graph.note(*NOTES[graph.name], EXAMPLES)
    graph.lay_out(
        [Group("1 · What is said", [[heard, note]])],
        [Group("2 · How face and head move", [[expression, pose]])],
        [Group("3 · Keys by hand", [[keyed]])],
        [Group("4 · Look, and keep it", [[preview, file]], SIDE_COLOR)],
    )


def upscale_and_restore(graph: Graph) -> None:
    picture, heard = portrait(graph), voice(graph)
    reference = graph.node("EncodeReference", image=picture["IMAGE"])
    expression = graph.node("ExpDiT", features=heard["features"])
    pose = graph.node("PoseDiT", features=heard["features"])
    motion = {"expression": expression["expression"], "pose": pose["pose"]}
    latents = graph.node("FD2TalkUNetSampler", reference=reference["reference"], **motion)
    frames = graph.node(
        "DecodeFrames", samples=latents["latents"], reference=reference["reference"], paste_back=False
    )
    large = graph.node(
        "ImageScaleBy", "Upscale 2 x", image=frames["frames"], upscale_method="lanczos", scale_by=2.0
    )
    # chosen by the user: the host has no model of its own to name here
    model = graph.node("UpscaleModelLoader", "Restorer or upscaler", model_name="GFPGANv1.4.pth", bypass=True)
    restored = graph.node(
        "ImageUpscaleWithModel",
        "Restore",
        upscale_model=model["UPSCALE_MODEL"],
        image=large["IMAGE"],
        bypass=True,
    )
    # an upscaler takes an IMAGE, so the host's own node makes the video
    video = graph.node("CreateVideo", images=restored["IMAGE"], audio=heard["audio"], fps=heard["frame rate"])
    file = saved(graph, video["VIDEO"])
    note = graph.note(*NOTES[graph.name], CONSENT)
    graph.lay_out(
        [
            Group("1 · Who speaks", [[picture], [reference]]),
            Group("2 · What is said, and how it moves", [[heard], [expression, pose]]),
        ],
        [Group("3 · The frames", [[latents, frames]])],
        [
            Group("4 · Larger", [[large]]),
            Group("5 · With a model: Ctrl+B", [[model, restored]], SIDE_COLOR),
            Group("About this graph", [[note]], SIDE_COLOR),
        ],
        [Group("6 · The video", [[video, file]])],
    )


def driving_video(graph: Graph) -> None:
    picture, heard = portrait(graph), voice(graph)
    reference = graph.node("EncodeReference", image=picture["IMAGE"])
    expression = graph.node("ExpDiT", features=heard["features"])
    film = graph.node("LoadVideo", "Driving video", file="fd2talk_driving.mp4")
    motion_of_film = graph.node(
        "FD2TalkCoefficientsFromVideo", video=film["VIDEO"], missing_faces="interpolate"
    )
    pose = graph.node(
        "FD2TalkRetime",
        "As long as the speech",
        pose=motion_of_film["pose"],
        features=heard["features"],
        method="loop",
    )
    motion = {"expression": expression["expression"], "pose": pose["pose"]}
    preview = graph.node("Coeff3DMMPreview", **motion, audio=heard["audio"])
    latents = graph.node("FD2TalkUNetSampler", reference=reference["reference"], **motion)
    video = decoded_and_saved(graph, latents, reference, heard)
    note = graph.note(*NOTES[graph.name], SOUND, EXAMPLES, CONSENT)
    graph.lay_out(
        [
            Group("1 · Who speaks", [[picture], [reference]]),
            Group("2 · What is said", [[heard], [expression]]),
            Group("About this graph", [[note]], SIDE_COLOR),
        ],
        [Group("3 · How the head moves", [[film, motion_of_film, pose]])],
        [Group("4 · The frames", [[latents]]), Group("Look at the motion first", [[preview]], SIDE_COLOR)],
        [Group("5 · The video", [video])],
    )


def dub_video(graph: Graph) -> None:
    film, heard = graph.node("LoadVideo", "The video", file="fd2talk_driving.mp4"), voice(graph)
    expression = graph.node("ExpDiT", features=heard["features"])
    dubbed = graph.node(
        "FD2TalkDubVideo", video=film["VIDEO"], expression=expression["expression"], audio=heard["audio"]
    )
    file = saved(graph, dubbed["video"])
    note = graph.note(*NOTES[graph.name], EXAMPLES, CONSENT)
    graph.lay_out(
        # level with the voice, the film's wire would seem to end there
        [Group("About this graph", [[note]], SIDE_COLOR), Group("1 · Who speaks", [[film]])],
        [Group("2 · What is said", [[heard], [expression]])],
        [Group("3 · The new video", [[dubbed, file]])],
    )


def two_people(graph: Graph) -> None:
    picture = graph.node("LoadImage", "Two people", image="fd2talk_two_people.png")
    files = [
        graph.node("LoadAudio", f"Voice, {side}", audio=file)
        for side, file in (("left", "fd2talk_speech.wav"), ("right", "fd2talk_reply.wav"))
    ]
    # a recording turned down to nothing is a pause of exactly its length, so that the lanes cannot part
    pauses = [
        graph.node("AudioAdjustVolume", f"Pause while {other} speaks", audio=file["AUDIO"], volume=-100)
        for other, file in zip(("left", "right"), files, strict=True)
    ]
    order = ((files[0], pauses[1]), (pauses[0], files[1]), (files[0], files[1]))
    lanes = [
        graph.node("AudioConcat", title, audio1=first["AUDIO"], audio2=second["AUDIO"])
        for title, (first, second) in zip(("Lane, left", "Lane, right", "Sound"), order, strict=True)
    ]
    people, shown = [], {}
    for index, side in enumerate(("left", "right")):
        heard = graph.node(
            "LoadAudioWav2Vec",
            f"What is heard, {side}",
            recording=lanes[index]["AUDIO"],
            audio_file="fd2talk_speech.wav",
        )
        reference = graph.node(
            "EncodeReference",
            f"Who speaks, {side}",
            image=picture["IMAGE"],
            face_index=index,
            face_order="left to right",
        )
        expression = graph.node("ExpDiT", features=heard["features"], seed=index)
        pose = graph.node("PoseDiT", features=heard["features"], seed=index)
        latents = graph.node(
            "FD2TalkUNetSampler",
            reference=reference["reference"],
            expression=expression["expression"],
            pose=pose["pose"],
        )
        video = graph.node(
            "FD2TalkDecodeVideo",
            f"Video, {side}",
            samples=latents["latents"],
            reference=reference["reference"],
            **shown,
        )
        # the second head is put into the video in which the first one moves already; both voices sound there
        shown = {"background": video["video"], "audio": lanes[2]["AUDIO"]}
        people.append([[heard, reference], [expression, pose], [latents], [video]])
    file = saved(graph, video["video"])
    note = graph.note(*NOTES[graph.name], EXAMPLES, CONSENT)
    graph.lay_out(
        [Group("1 · The picture", [[picture]]), Group("About this graph", [[note]], SIDE_COLOR)],
        [Group("2 · Who speaks when", [[*files, *pauses, *lanes]])],
        [Group("3 · The left person", people[0]), Group("4 · The right person", people[1])],
        [Group("5 · The video", [[file]])],
    )


def batch_of_voices(graph: Graph) -> None:
    picture, heard = portrait(graph), voice(graph)
    reference = graph.node("EncodeReference", image=picture["IMAGE"])
    expression = graph.node("ExpDiT", features=heard["features"])
    pose = graph.node("PoseDiT", features=heard["features"])
    latents = graph.node(
        "FD2TalkUNetSampler",
        reference=reference["reference"],
        expression=expression["expression"],
        pose=pose["pose"],
    )
    video = decoded_and_saved(graph, latents, reference, heard)
    note = graph.note(*NOTES[graph.name], CONSENT)
    graph.lay_out(
        [
            Group("1 · Who speaks", [[picture], [reference]]),
            Group("2 · What is said, and how it moves", [[heard], [expression, pose]]),
        ],
        [Group("3 · The frames", [[latents]]), Group("About this graph", [[note]], SIDE_COLOR)],
        [Group("4 · The video", [video])],
    )


WORKFLOWS: dict[str, Callable[[Graph], None]] = {
    describe.__name__: describe
    for describe in (
        talking_portrait,
        custom_pose,
        driving_video,
        dub_video,
        motion_preview,
        head_animation,
        animator_lip_keys,
        upscale_and_restore,
        two_people,
        batch_of_voices,
    )
}


APP_FILES = {
    "LoadImage": "image",
    "LoadVideo": "file",
    "LoadAudio": "audio",
    "LoadAudioWav2Vec": "audio_file",
    "FD2TalkLoadCoefficients": "motion_file",
}
"""In app mode, what a graph is made of: node class and widget."""
APP_MOVES = {"ExpDiT": "face", "PoseDiT": "head", "FD2TalkScaleMotion": "head"}
"""What the motion of a node moves."""
APP_AMOUNTS = {"PoseDiT": "intensity", "FD2TalkScaleMotion": "rotation", "ExpDiT": "intensity"}
"""Ways to say how much moves; the first class of which a graph has nodes."""
APP_RESULTS = ("SaveVideo", "Coeff3DMMPreview")
"""What shows a graph's video; the first class of which it has nodes."""


def as_app(graph: Graph) -> None:
    """Choose what app mode shows of any graph: its files, mood, seeds, amount of motion, and video."""
    by_class: dict[str, list[Node]] = {}
    for node in graph.nodes:
        by_class.setdefault(node.kind, []).append(node)

    def offer(kind: str, widget: str) -> None:
        nodes = by_class.get(kind, [])
        for number, node in enumerate(nodes, 1):
            which = f" {number}" if len(nodes) > 1 else ""
            graph.controls[node, widget] = f"{widget} ({APP_MOVES[kind]}{which})"

    for kind, widget in APP_FILES.items():
        # a voice that comes from another node needs no file
        files = [node for node in by_class.get(kind, []) if "recording" not in node.inputs]
        graph.controls |= {(node, widget): node.title for node in files}
    offer("ExpDiT", "style")
    for kind in ("ExpDiT", "PoseDiT"):
        offer(kind, "seed")
    if amount := next((kind for kind in APP_AMOUNTS if kind in by_class), None):
        offer(amount, APP_AMOUNTS[amount])
    graph.results += by_class.get(next((kind for kind in APP_RESULTS if kind in by_class), ""), [])


def blueprint(object_info: dict[str, dict]) -> dict:
    """The whole way from a picture and a recording to frames, as one node to drop in."""
    graph = new_graph("talking_portrait", object_info)
    heard = graph.node("LoadAudioWav2Vec", recording=Open("audio"), fps=Open("fps"), audio_file="")
    reference = graph.node("EncodeReference", image=Open("portrait"), face_index=Open("face_index"))
    expression = graph.node(
        "ExpDiT",
        features=heard["features"],
        seed=Open("seed"),
        intensity=Open("expression_intensity"),
        style=Open("style"),
        style_strength=Open("style_strength"),
    )
    pose = graph.node("PoseDiT", features=heard["features"], seed=Open("seed"), intensity=Open("head_motion"))
    latents = graph.node(
        "FD2TalkUNetSampler",
        reference=reference["reference"],
        expression=expression["expression"],
        pose=pose["pose"],
        seed=Open("seed"),
        steps=Open("steps"),
    )
    decoded = {
        "samples": latents["latents"],
        "reference": reference["reference"],
        "paste_back": Open("paste_back"),
    }
    # the host runs only what an output is taken from, so that nothing is decoded twice unasked
    video = graph.node("FD2TalkDecodeVideo", **decoded, audio=heard["audio"])
    frames = graph.node("DecodeFrames", **decoded)
    graph.lay_out(
        [Group("Who speaks", [[reference]]), Group("What is said", [[heard]])],
        [Group("How face and head move", [[expression, pose]])],
        [Group("The frames", [[latents]])],
        [Group("The video", [[video, frames]])],
    )
    return graph.blueprint(
        BLUEPRINT,
        "A portrait (IMAGE) and a recording (AUDIO) become a talking-head video.",
        {"video": video["video"], "frames": frames["frames"]},
    )


def text_of(content: dict) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def files(object_info: dict[str, dict]) -> dict[Path, str]:
    """Every file by its path in the repository, for a host that answers ``object_info``."""
    written = {}
    for name, describe in WORKFLOWS.items():
        graph = new_graph(name, object_info)
        describe(graph)
        as_app(graph)
        written[Path("workflows", f"{name}.json")] = text_of(graph.ui())
        written[Path("workflows", "api", f"{name}.json")] = text_of(graph.api())
    written[Path("subgraphs", f"{BLUEPRINT}.json")] = text_of(blueprint(object_info))
    return written


def main() -> int:
    with ComfyUIServer(ROOT / "demo" / "comfyui", prepare()) as server:
        for path, text in files(server.get("/object_info")).items():
            (ROOT / path).parent.mkdir(exist_ok=True)
            (ROOT / path).write_text(text, encoding="utf-8")
            say(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
