"""The lip expert's batches: what is sampled, and that the network does not wait for them."""

from __future__ import annotations

import time
from statistics import median

import pytest
import torch

from fd2talk_core import configs
from fd2talk_core.face.model import default_face_model
from training.mouths import mouth_basis
from training.sources import SpeechClip, SpeechSet
from training.stages.lip_expert import LipExpertOptions, LipExpertStage
from training.trainer import sample_seed
from training.trainer.samples import Samples

AUDIO = 128


def speech(seed: int, lengths: tuple[int, ...]) -> SpeechSet:
    """Clips in which feature 0 is the frame's number and feature 1 the clip's."""
    generator = torch.Generator().manual_seed(seed)
    clips = []
    for number, frames in enumerate(lengths):
        features = torch.randn(frames, AUDIO, generator=generator)
        features[:, 0], features[:, 1] = torch.arange(frames), number
        clips.append(
            SpeechClip(
                name=f"clip{number}",
                sound=torch.zeros(frames * 640),
                phonemes=(),
                expression=torch.rand(frames, 52, generator=generator),
                pose=torch.zeros(frames, 6),
                identity=torch.zeros(80),
                fps=25.0,
                features=features.half(),
            )
        )
    return SpeechSet(tuple(clips))


@pytest.fixture(scope="module")
def stage() -> LipExpertStage:
    face_model = default_face_model()
    vertices = mouth_basis(face_model).shape[1]
    expert = configs.build("lip_expert", "tiny", 0, num_mouth_vertices=vertices, audio_dim=AUDIO)
    return LipExpertStage(
        expert, speech(0, (20, 21, 60, 25, 150)), speech(1, (80,)), face_model, LipExpertOptions()
    )


def plain_sample(clips: SpeechSet, options: LipExpertOptions, frames: int, generator: torch.Generator):
    """One sample by loops over the clips, as the batch must have it."""
    length = 2 * frames + 2 * options.nearest
    places = [(c, s) for c in clips.clips for s in range(c.num_frames - length + 1)]
    window, offset, *draws = torch.rand(2 + options.negatives, generator=generator).tolist()
    clip, start = places[min(int(window * len(places)), len(places) - 1)]
    start += min(int(offset * (length - frames + 1)), length - frames)
    others = []
    last = clip.num_frames - frames
    for number, draw in enumerate(draws):
        reach = options.reach if number % 2 == 0 else last
        choices = [i for i in range(last + 1) if options.nearest <= abs(i - start) <= reach]
        moment = choices[min(int(draw * len(choices)), len(choices) - 1)]
        others.append(clip.features[moment : moment + frames].float())
    expression = clip.expression[start : start + frames]
    expression = expression + torch.randn(expression.shape, generator=generator) * options.noise
    return {
        "expression": expression,
        "audio": clip.features[start : start + frames].float(),
        "others": torch.stack(others),
    }


def test_a_batch_holds_the_samples_of_the_plain_form(stage: LipExpertStage) -> None:
    clips = speech(0, (20, 21, 60, 25, 150))
    found = Samples(stage, 7).__getitems__(list(range(100, 300)))
    for row, index in enumerate(range(100, 300)):
        generator = torch.Generator().manual_seed(sample_seed(7, index))
        for name, value in plain_sample(clips, stage.options, stage.frames, generator).items():
            assert torch.equal(found[name][row], value), (name, index)


def test_other_moments_are_of_the_same_clip_and_far_enough(stage: LipExpertStage) -> None:
    batch = Samples(stage, 0).__getitems__(list(range(500)))
    here, there = batch["audio"][:, 0], batch["others"][:, :, 0]
    assert torch.equal(here[:, None, 1].expand_as(there[..., 1]), there[..., 1])
    distance = (there[..., 0] - here[:, None, 0]).abs()
    assert distance.min() == stage.options.nearest
    assert distance[:, ::2].max() <= stage.options.reach < distance[:, 1::2].max()


def test_waiting_for_data_is_under_a_tenth(stage: LipExpertStage) -> None:
    """At the batch size of the configuration that the shipped weights were trained with."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        samples, times = Samples(stage, 0), {"data": [], "step": []}
        parameters = list(stage.networks.parameters())
        for step in range(8):
            started = time.process_time()
            batch = samples.__getitems__(list(range(step * 128, step * 128 + 128)))
            ready = time.process_time()
            torch.autograd.grad(stage(batch)["loss"], parameters)
            done = time.process_time()
            if step:  # the first one warms up
                times["data"].append(ready - started)
                times["step"].append(done - ready)
        # of other programs on the same processor a step or two may suffer
        data, rest = (median(values) for values in times.values())
        assert data < 0.1 * (data + rest), times
    finally:
        torch.set_num_threads(threads)
