"""A video's chunks of super images in, its finished folder out, without a job."""

import pathlib
from collections.abc import Iterable

from gridclip.dali_pipes.contract import Notice, SuperImages
from gridclip.dali_pipes.image_folders import jpeg
from gridclip.dali_pipes.image_folders.grids import FolderWriters
from gridclip.dali_pipes.sampling import Sampling


def save(save_dir: pathlib.Path, video_id: str, chunks: Iterable[SuperImages | Notice], sampling: Sampling) -> None:
    """Writes the folder as a job does; nothing is left of it where that fails."""
    part_dir = save_dir / ".parts"
    part_dir.mkdir(exist_ok=True)
    try:
        writer = FolderWriters(video_id, sampling, save_dir, part_dir)
        try:
            for chunk in chunks:
                if isinstance(chunk, SuperImages):
                    writer.write(jpeg.compress(chunk))
            writer.finish()
        finally:
            writer.discard()
    finally:
        part_dir.rmdir()
