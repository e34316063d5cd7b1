"""``velatura inpaint``."""

from __future__ import annotations

from velatura.cli.common import image_command
from velatura.cli.inpaint_volume import inpaint_volume
from velatura.tasks.inpaint import Inpaint

__all__ = ["inpaint"]

inpaint = image_command(
    Inpaint,
    by_flag=("mask",),
    instead=inpaint_volume,
    examples="""
    velatura inpaint photo.jpg --mask hole.png -o filled.jpg
    velatura inpaint photo.jpg --box 420,310,80,60 -o filled.jpg
    velatura inpaint painted.png --mask-color ff00ff --model texture -o filled.png
    velatura inpaint portrait.jpg --mask hole.png --candidates 4 --disagreement map.png -o filled.png
    velatura inpaint slice.png --mask lesion.png --model vae-brain -o filled.png
    velatura inpaint photos/ --mask masks/ -o filled/      (a batch)
    velatura inpaint brain.nii.gz --mask lesion.nii.gz -o filled.nii.gz
    """,
)
