"""dali_pipes/packets/jumping.py: from wherever it starts, the packets are those of a pass over the whole file."""

import dataclasses
import pathlib

import numpy as np
import pytest
from gridclip.dali_pipes.packets import jumping, scan


def scanned(path: pathlib.Path):
    with scan.open_video(path) as (container, stream):
        _, table, packets = scan.scan(container, stream)
    return table, [bytes(packet) for packet in packets]


def test_of_every_real_file_the_packets_are_the_same_and_most_files_are_not_read_from_the_start(shared_data):
    skipped = 0
    for path in sorted((shared_data / "videos").iterdir()):
        table, packets = scanned(path)
        for position in range(0, len(packets), max(1, len(packets) // 3)):
            found = list(jumping.packets_from(path, table, position))
            assert found[0][0] <= position and found[-1][0] == len(packets) - 1
            assert [bytes(packet) for _, packet in found] == packets[found[0][0] :]
            skipped += found[0][0] > 0
    assert skipped >= 9


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("a.ts", "libx264"), ("a.mkv", "libx264")])
def test_other_containers(write_video, tmp_path, name, codec):
    options = {"g": "10"} if codec == "mpeg4" else {"preset": "veryfast", "bf": "2", "g": "10"}
    path = write_video(tmp_path / name, codec=codec, options=options, duration_s=6)
    table, packets = scanned(path)
    found = list(jumping.packets_from(path, table, 45))
    assert found[0][0] <= 45
    assert [bytes(packet) for _, packet in found] == packets[found[0][0] :]


def test_a_file_that_is_not_what_was_scanned_is_noticed(write_video, tmp_path):
    path = write_video(tmp_path / "a.mp4", duration_s=6)
    table, _ = scanned(path)
    sizes = table.sizes.copy()
    sizes[50] += 1
    other = dataclasses.replace(table, sizes=sizes)
    with pytest.raises(jumping.Elsewhere, match="packet 50 "):
        list(jumping.packets_from(path, other, 41))
    without_times = dataclasses.replace(table, pts=np.zeros_like(table.pts))
    assert next(jumping.packets_from(path, without_times, 41))[0] == 0
