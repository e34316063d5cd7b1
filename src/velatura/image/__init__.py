"""The only door for pixels: every image comes in through `open_image` and goes out through `save_image`.

    path, PIL image, array, tensor ── open_image ──► Picture ── to_form ────► the kind that came in
                                      open_mask  ──► (H, W)    save_image ──► file
                                                               RowWriter ───► file, band by band

What is promised of files, in and out, is in the docstrings of `open_image` and `save_image`.

====================  ===========================================================================
``picture.py``        `Picture` and the small classes beside it
``memory.py``         PIL images, arrays and tensors, in and out
``decode.py``         files in: what is let in, and how failures are told
``mask.py``           masks: any image as one channel
``encode.py``         files out: atomic, checked before the work
``sheet.py``          several pictures as one, and as numbered files
``metadata.py``       EXIF, XMP, ICC
``png.py``            16-bit PNG in, all PNG out
``tiff.py``           TIFF in and out
====================  ===========================================================================
"""

from velatura.image.decode import SUFFIXES, open_image, probe
from velatura.image.encode import RowWriter, check_output, save_image
from velatura.image.mask import open_mask
from velatura.image.memory import in_profile_of, rescaled, to_form, to_pil
from velatura.image.picture import LUMA, Form, ImageInfo, ImageWarning, Picture, premultiply, unpremultiply, white_of
from velatura.image.sheet import Sheet, side_by_side

__all__ = [
    "LUMA",
    "SUFFIXES",
    "Form",
    "ImageInfo",
    "ImageWarning",
    "Picture",
    "RowWriter",
    "Sheet",
    "check_output",
    "in_profile_of",
    "open_image",
    "open_mask",
    "premultiply",
    "probe",
    "rescaled",
    "save_image",
    "side_by_side",
    "to_form",
    "to_pil",
    "unpremultiply",
    "white_of",
]
