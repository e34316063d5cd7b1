"""``velatura blend``."""

from __future__ import annotations

from velatura.cli.common import image_command
from velatura.tasks.blend import Blend

__all__ = ["blend"]

blend = image_command(
    Blend,
    examples="""
    velatura blend boat.png lake.jpg mask.png --at 420,310 -o out.jpg
    velatura blend boat.png lake.jpg --method poisson -o out.png   (mask: alpha)
    velatura blend boats/ lake.jpg masks/ --jobs 4 -o out/         (a batch)
    """,
)
