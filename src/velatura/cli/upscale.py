"""``velatura upscale``."""

from __future__ import annotations

from velatura.cli.common import image_command
from velatura.tasks.upscale import Upscale

__all__ = ["upscale"]

upscale = image_command(
    Upscale,
    examples="""
    velatura upscale photo.jpg -o large.jpg
    velatura upscale photo.jpg --size 3840x -o wide.png
    velatura upscale photo.jpg --consistent --evidence map.png -o large.png
    velatura upscale photos/ --model bicubic --scale 2 -o large/      (a batch)
    """,
)
