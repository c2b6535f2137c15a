"""engine/jobs/metrics.py: a running job's metrics, scraped, against what the job was given and did."""

import json
import socket
import threading
import urllib.request

import coloured_videos
import fake_model
import gridclip
import pytest
from gridclip import GridClipError
from gridclip.engine.jobs import embed_videos, metrics
from gridclip.engine.jobs.heartbeat import Heartbeat
from gridclip.engine.jobs.progress import Counts, NodeCounts
from gridclip.engine.jobs.status import read_status
from prometheus_client.parser import text_string_to_metric_families


def scrape(port: int) -> dict[str, float]:
    """Values by name, with `/stage` behind those that have one."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        "/".join([sample.name.removeprefix("gridclip_job_"), *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for colour in list(coloured_videos.COLOURS)[:3]:
        coloured_videos.write(folder / f"{colour}.mp4", colour, duration_s=12)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def test_a_running_job_can_be_scraped(videos, tmp_path, monkeypatch):
    """The job is held where its last video is done, so that what it has done by then is known."""
    model = gridclip.load_model(fake_model.write(tmp_path / "model"), num_gpus=0)
    reached, go_on = threading.Event(), threading.Event()
    make = embed_videos.video_source

    def holding(*arguments, **options):
        source = make(*arguments, **options)

        def events(given):
            yield from source(given)
            reached.set()
            go_on.wait(60)

        return events

    monkeypatch.setattr(embed_videos, "video_source", holding)
    port = free_port()
    options = {"num_workers": 1, "batch_size": 1, "metrics_port": port}
    job = threading.Thread(target=gridclip.embed_videos, args=(model, videos, tmp_path / "s"), kwargs=options)
    job.start()
    try:
        assert reached.wait(60)
        found = scrape(port)
    finally:
        go_on.set()
        job.join()
    assert found["videos_failed_total/open"] == 1
    assert found["videos_done_total"] + found["videos_left"] == 3
    assert (found["videos_waiting"], found["videos_in_work"]) == (0, found["videos_left"])
    assert 0 < found["super_images_total"] <= 6 and found["super_images_per_second"] >= 0
    assert found["video_bytes_total"] == sum(path.stat().st_size for path in videos.iterdir())
    assert found["worker_cpu_seconds_total"] > 0 and found["storage_read_bytes_total"] >= 0
    assert "encoder_busy_seconds_total" in found and "eta_seconds" in found
    with pytest.raises(OSError, match="refused"):  # the port goes with the job
        scrape(port)


def test_a_port_that_is_taken_is_named(videos, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(GridClipError, match=rf"`metrics_port={port}` at 127.0.0.1 cannot be used"):
            gridclip.superimages(videos, tmp_path / "out", num_workers=1, metrics_port=port)


def test_the_nodes_of_a_cluster_have_metrics_and_lines_of_their_own(tmp_path):
    nodes = {"10.0.0.1-ab": NodeCounts(workers=2, in_work=3, done=40, super_images=600, failed=1, deaths=1)}
    nodes["10.0.0.2-cd"] = NodeCounts(workers=1, done=2, super_images=30)
    counts = Counts("embedded", 100, 42, 1, 0, 630, {"decode": 1}, 0.0, 10.0, handed_out=46, nodes=nodes)
    port = free_port()
    with metrics.shown(lambda: counts, ("127.0.0.1", port)):
        found = scrape(port)
    assert found["gridclip_node_videos_done_total/10.0.0.1-ab"] == 40
    assert found["gridclip_node_worker_deaths_total/10.0.0.1-ab"] == 1
    assert found["gridclip_node_videos_in_work/10.0.0.1-ab"] == 3 and found["gridclip_node_workers/10.0.0.2-cd"] == 1
    assert found["videos_done_total"] == 42, "of the job, not of its nodes"
    assert Counts.of_json(json.loads(json.dumps(counts.to_json()))) == counts
    old = {name: value for name, value in counts.to_json().items() if name != "nodes"}
    assert Counts.of_json(old).nodes == {}
    with Heartbeat(tmp_path, 1, 0, lambda: counts):
        shown = str(read_status(tmp_path))
    assert "  node 10.0.0.1-ab: 2 workers, 3 videos in work, 40 done, 1 failed, 1 deaths of workers" in shown
    assert "  node 10.0.0.2-cd: 1 workers, 0 videos in work, 2 done" in shown.splitlines()
