"""``velatura pipeline``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from velatura.cli.common import ImageOptions, image_command
from velatura.engines import WorkSpec
from velatura.pipeline import Pipeline, PipelineParams
from velatura.task import parse_params

__all__ = ["pipeline"]


def _check(work: WorkSpec, paths: Sequence[str | None], out: Path, shared: ImageOptions) -> None:
    """Refuse wrong steps before a batch makes its folder."""
    Pipeline.check(parse_params(PipelineParams, work.params))


pipeline = image_command(
    Pipeline,
    has_model=False,
    instead=_check,
    examples="""
    velatura pipeline scan.jpg --step restore --step upscale:scale=2 -o large.jpg
    velatura pipeline photo.jpg --step upscale:size=1920x,model=esrgan-photo --compare sheet.png -o large.jpg
    velatura pipeline photo.png --step inpaint:box=40,25,60,30,model=texture --step upscale:consistent=on -o large.png
    velatura pipeline scans/ --step restore --step upscale -o large/      (a batch)
    """,
)
