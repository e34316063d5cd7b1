"""Exported upscalers run by OpenVINO, in a process that never loads torch.

For `velatura.onnx_export`'s files. An ONNX network keeps no rows between bands, so that an image goes through it in
tiles (`velatura.tiling.tiles`): with `ExportedUpscaler.receptive_radius` pixels around each for the same result, with
`ExportedUpscaler.halo` for less than half a grey level off and less work.

OpenVINO's package reports every import to its maker's statistics, without asking. Here it is imported without the
module that does so, which it can do without: nothing is sent and nothing is written to the home folder.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np

from velatura.device import threads
from velatura.errors import MachineError, ModelError

__all__ = ["ExportedUpscaler"]


class ExportedUpscaler:
    """An exported upscaler on the processor; threads may share it, and take turns.

    Parameters
    ----------
    path : str or path
        What ``velatura models export NAME -o FILE.onnx`` wrote.
    half : bool
        Compute in bfloat16 where the processor has it.

    Attributes
    ----------
    path : Path
    name : str
        Of the model.
    scale : int
        How many times larger the output is.
    receptive_radius : int
        Pixels of the input on each side that an output pixel depends on, exactly.
    halo : int
        Beyond so many pixels a cut changes less than half a grey level, measured on photographs when the file was
        written; see `velatura.community.measured_radius`.

    Raises
    ------
    ModelError
        The file is damaged, or nothing that was exported by velatura to enlarge images.
    MachineError
        OpenVINO is not installed.
    """

    def __init__(self, path: str | Path, *, half: bool = True) -> None:
        self.path = path = Path(path)
        if not path.is_file():
            raise ModelError(f"{path}: no such file; velatura models export NAME -o FILE.onnx writes one")
        core = _openvino().Core()
        try:
            # From memory: what was read is what is run.
            model = core.read_model(model=path.read_bytes())
        except RuntimeError:
            raise ModelError(f"{path.name}: not a whole ONNX file; export it again") from None
        notes = {}
        for key in ("name", "scale", "receptive_radius", "halo"):
            if not model.has_rt_info(["framework", key]):
                raise ModelError(f"{path.name}: no upscaler that velatura exported (it does not say its {key})")
            notes[key] = str(model.get_rt_info(["framework", key]).value)
        try:
            self.name, self.scale = notes["name"], int(notes["scale"])
            self.receptive_radius, self.halo = int(notes["receptive_radius"]), int(notes["halo"])
        except ValueError:
            raise ModelError(f"{path.name}: what it says about itself is damaged; export it again") from None
        able = half and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "bf16" if able else "f32",
                "INFERENCE_NUM_THREADS": threads(),
                "NUM_STREAMS": 1,
            },
        )
        self._request = compiled.create_infer_request()
        # One image at a time has all threads: two would share them, with twice the memory.
        self._turn = threading.Lock()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Enlarge.

        Parameters
        ----------
        image : ndarray of float32, (H, W, 3)
            RGB, 0..1.

        Returns
        -------
        ndarray of float32, (scale H, scale W, 3)
            About 0..1, not clipped.
        """
        planes = np.ascontiguousarray(np.moveaxis(image, 2, 0)[None], np.float32)
        with self._turn:
            # The outputs are the engine's own memory, which the next call writes onto.
            enlarged = self._request.infer({0: planes}, share_inputs=True, share_outputs=True)[0]
            return np.moveaxis(enlarged[0], 0, 2).copy()


def _openvino() -> ModuleType:
    """Import OpenVINO, silent."""
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType] - an import then fails
    try:
        import openvino  # pyright: ignore[reportMissingImports] - an extra
    except ImportError as error:
        raise MachineError(f'OpenVINO cannot be imported ({error}); pip install "velatura[openvino]"') from None
    return openvino
