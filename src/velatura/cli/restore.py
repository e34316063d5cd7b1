"""``velatura restore``."""

from __future__ import annotations

from velatura.cli.common import image_command
from velatura.tasks.restore import Restore

__all__ = ["restore"]

restore = image_command(
    Restore,
    by_flag=("scratches",),
    examples="""
    velatura restore scan.jpg -o photo.jpg
    velatura restore scan.tif --mask-out marks.png --compare sheet.jpg -o photo.tif
    velatura restore scan.jpg --sensitivity 0.8 -o photo.jpg     (faint marks, too)
    velatura restore scan.tif --scratches marks.png --strength 0.7 -o photo.tif
    velatura restore scan.png --scratches off --no-fading --no-faces -o photo.png
    velatura restore album/ -o restored/      (a batch)
    """,
)
