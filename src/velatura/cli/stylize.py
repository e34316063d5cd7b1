"""``velatura stylize``."""

from __future__ import annotations

from velatura.cli.common import image_command
from velatura.tasks.stylize import Stylize

__all__ = ["stylize"]

stylize = image_command(
    Stylize,
    by_flag=("mask",),
    rest="also",
    examples="""
    velatura stylize photo.jpg painting.jpg -o painted.jpg
    velatura stylize photo.jpg painting.jpg -o painted.jpg --strength 0.6 --keep-color luminance
    velatura stylize photo.jpg a.jpg b.jpg --weights 0.7,0.3 -o mixed.jpg
    velatura stylize photo.jpg painting.jpg -o painted.jpg --method optimize --frames steps/ --curve loss.svg
    velatura stylize photo.jpg painting.jpg -o painted.jpg --style-out painting.safetensors
    velatura stylize frames/ painting.safetensors -o painted/      (a batch)
    """,
)
