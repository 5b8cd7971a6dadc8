"""KL and VQ autoencoders of latent diffusion as the start of ours (FD2Talk Sec. 4.1: both are fine-tuned).

Encoder and decoder are the same networks. What is left out of theirs is folded in: the two 1 × 1 convolutions
around the latent into the encoder's last one, and of a KL encoder only the mean is kept. A VQ codebook is
dropped, since 𝓓 is fine-tuned on latents that are not quantised. The first convolution of 𝓓 is widened by the
portrait's latent with weights of 0: at the start the decoder is the one that was trained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.files import check_input, reason_of, shown_path
from fd2talk_core.networks.autoencoder import FrameAutoencoder

FILE = "diffusion_pytorch_model.safetensors"
"""As diffusers names it in a model's folder."""

_LATENT_DIFFUSION = (
    (r"^first_stage_model\.", ""),
    (r"\bmid\.block_1\b", "mid_block.resnets.0"),
    (r"\bmid\.block_2\b", "mid_block.resnets.1"),
    (r"\bmid\.attn_1\b", "mid_block.attentions.0"),
    (r"\bdown\.(\d+)\.block\.", r"down_blocks.\1.resnets."),
    (r"\bdown\.(\d+)\.downsample\.", r"down_blocks.\1.downsamplers.0."),
    (r"\bnorm_out\b", "conv_norm_out"),
    (r"\bnin_shortcut\b", "conv_shortcut"),
)
_ATTENTION = (
    (r"(attentions\.0)\.norm\.", r"\1.group_norm."),
    (r"(attentions\.0)\.(?:q|query)\.", r"\1.to_q."),
    (r"(attentions\.0)\.(?:k|key)\.", r"\1.to_k."),
    (r"(attentions\.0)\.(?:v|value)\.", r"\1.to_v."),
    (r"(attentions\.0)\.(?:proj_out|proj_attn)\.", r"\1.to_out.0."),
)
"""Patterns that turn names of latent diffusion, and of older versions of diffusers, into diffusers'."""


def start_from_pretrained(network: FrameAutoencoder, path: Path) -> None:
    """Give an autoencoder of the architecture ``kl`` the weights of a trained one.

    Args:
        path: a safetensors file, or a folder that diffusers has written.

    Raises:
        FD2TalkError: when it cannot be read, or is of another size.
    """
    if network.config.architecture != "kl":
        raise FD2TalkError(
            f"pretrained needs an autoencoder of the architecture 'kl', not "
            f"{network.config.architecture!r}: take size: base."
        )
    path = path / FILE if path.is_dir() else path
    if path.suffix != ".safetensors":
        raise FD2TalkError(f"{shown_path(path.name)} is no safetensors file: convert it to one first.")
    try:
        theirs = load_file(check_input(path, "pretrained autoencoder"))
    except (OSError, SafetensorError) as error:
        raise FD2TalkError(f"{shown_path(path.name)} cannot be read ({reason_of(error)}).") from error
    ours = converted(theirs, network.config.latent_channels)
    own = network.state_dict()
    kept = {name for name in own if name.startswith(("encoder.latent_", "portrait_blend."))}
    for name in sorted((own.keys() - kept) | ours.keys()):
        if name not in ours or name not in own or ours[name].shape != own[name].shape:
            raise FD2TalkError(
                f"{shown_path(path.name)} is no autoencoder of this network's size ({name} differs): set "
                "autoencoder.network to its latent_channels, block_out_channels and blocks."
            )
    network.load_state_dict({**own, **ours})


def converted(theirs: Mapping[str, Tensor], latent_channels: int) -> dict[str, Tensor]:
    """Weights of diffusers' ``AutoencoderKL`` or ``VQModel``, or of latent diffusion, by our names.

    Args:
        latent_channels: d.

    Raises:
        FD2TalkError: when the last convolution of the encoder or the first of the decoder is missing.
    """
    named = {renamed(name, theirs): value.float() for name, value in theirs.items()}
    try:
        weight, bias = named["encoder.conv_out.weight"], named["encoder.conv_out.bias"]
        first = named["decoder.conv_in.weight"]
    except KeyError as error:
        raise FD2TalkError(f"The pretrained autoencoder has no {error.args[0]}.") from error
    for place in ("quant_conv", "post_quant_conv"):
        if f"{place}.weight" in named:
            turn = named[f"{place}.weight"][:, :, 0, 0]
            weight = torch.einsum("oi,ixyz->oxyz", turn, weight)
            bias = turn @ bias + named[f"{place}.bias"]
        # of a KL encoder the first half is the mean
        weight, bias = weight[:latent_channels], bias[:latent_channels]
    ours = {
        # the module ``layers`` of our encoder is theirs
        (f"encoder.layers.{name[8:]}" if name.startswith("encoder.") else name): _squeezed(name, value)
        for name, value in named.items()
        if name.startswith(("encoder.", "decoder."))
    }
    ours["encoder.layers.conv_out.weight"], ours["encoder.layers.conv_out.bias"] = weight, bias
    ours["decoder.conv_in.weight"] = torch.cat([torch.zeros_like(first), first], dim=1)
    return ours


def renamed(name: str, theirs: Mapping[str, Tensor]) -> str:
    """A name of latent diffusion as diffusers has it; diffusers' own stay."""
    for pattern, replacement in (*_LATENT_DIFFUSION, *_ATTENTION):
        name = re.sub(pattern, replacement, name)
    if found := re.match(r"decoder\.up\.(\d+)\.(block|upsample)\.(.+)", name):
        levels = 1 + max(int(n) for key in theirs for n in re.findall(r"decoder\.up\.(\d+)\.", key))
        part = "resnets." if found[2] == "block" else "upsamplers.0."
        return f"decoder.up_blocks.{levels - 1 - int(found[1])}.{part}{found[3]}"
    return name


def _squeezed(name: str, value: Tensor) -> Tensor:
    """Latent diffusion's attention is made of 1 × 1 convolutions."""
    return value[:, :, 0, 0] if "attentions.0.to_" in name and value.ndim == 4 else value
