"""Chunks of JPEG files of one or several grid sizes in, a JPEG folder of each video for each grid size out.

With one grid size the folder of a video is `<save_dir>/<video_id>`; with several, `<save_dir>/grid_<N>/<video_id>`.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil

from ..contract import CompressedImages
from ..sampling import Sampling
from .jpeg import FolderWriter, part_folder


def folders(save_dir: pathlib.Path, sampling: Sampling) -> dict[pathlib.Path, Sampling]:
    """Where the folders of videos go, the finest grid first, each with the settings of what lies there."""
    if len(sampling.grid_sizes) == 1:
        return {save_dir: sampling}
    return {
        save_dir / f"grid_{size}": dataclasses.replace(sampling, grid_size=size, stride=sampling.stride_of(size))
        for size in sampling.grid_sizes
    }


class FolderWriters:
    """The folders of one video while they grow, one for each grid size; see FolderWriter for the arguments and errors.

    Other jobs take a video for being in work while its part folder is there, so all parts lie in it.
    """

    def __init__(self, video_id: str, sampling: Sampling, save_dir: pathlib.Path, part_dir: pathlib.Path) -> None:
        self._part = part_folder(part_dir, video_id)
        places = folders(save_dir, sampling)
        self._writers = {
            alone.grid_size: FolderWriter(
                video_id, alone, folder, part_dir if folder == save_dir else self._part / folder.name
            )
            for folder, alone in places.items()
        }
        self._only = next(iter(self._writers.values())) if len(places) == 1 else None

    def write(self, chunk: CompressedImages) -> None:
        """Writes a chunk's files; chunks may come in any order."""
        if self._only is not None:
            self._only.write(chunk)
            return
        for grid_size, part in chunk.by_grid():
            self._writers[grid_size].write(part)

    def finish(self) -> None:
        """Puts the complete folders in the place of older ones."""
        for writer in self._writers.values():
            writer.finish()

    def discard(self) -> None:
        """Removes what is not finished."""
        for writer in self._writers.values():
            writer.discard()
        shutil.rmtree(self._part, ignore_errors=True)
