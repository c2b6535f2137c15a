"""engine/encoding/cpu_passes.py and cuda_passes.py: several batches in flight, each embedding in its place."""

import contextlib
import threading
import types

import fake_model
import numpy as np
import pytest
import torch
from gridclip.engine.encoding import cuda_passes
from gridclip.engine.encoding.cpu_passes import CpuPasses
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.encoding.image_graph import ImageGraph


@pytest.fixture
def encoder(tmp_path):
    return Encoder(fake_model.write(tmp_path / "model"), provider="cpu", num_threads=1)


def coloured(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.broadcast_to(rng.integers(1, 256, (count, 1, 1, 3), dtype=np.uint8), (count, 64, 64, 3)).copy()


class FakeStream:
    """What CudaPasses asks of a stream and of events, on a machine without a GPU."""

    device = types.SimpleNamespace(index=0)

    def wait_stream(self, other):
        pass

    def synchronize(self):
        pass

    def query(self):
        return True

    def elapsed_time(self, other):
        return 1.0


class FakeEvent(FakeStream):
    def record(self, stream):
        pass


def passes_without_a_gpu(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, batch_size: int, cells: int | None = None
) -> cuda_passes.CudaPasses:
    """CudaPasses with the CPU in the place of the GPU: the same buffers, bindings and order of steps."""
    shim = types.SimpleNamespace(**{name: getattr(torch, name) for name in ("uint8", "float32", "Tensor")})
    current: list[object] = []

    def zeros(shape, dtype, device=None, pin_memory=False):
        assert current == [FakeStream.device], "memory is taken before the GPU is chosen"
        return torch.zeros(shape, dtype=dtype)

    shim.zeros = zeros
    shim.as_tensor = lambda data, device=None: torch.as_tensor(data)
    shim.cuda = types.SimpleNamespace(
        Event=lambda enable_timing: FakeEvent(),
        stream=lambda stream: contextlib.nullcontext(),
        current_stream=lambda device: FakeStream(),
        Stream=FakeStream,
        set_device=current.append,
    )
    monkeypatch.setattr(cuda_passes, "torch", shim)
    bind = ImageGraph.bind
    monkeypatch.setattr(
        ImageGraph, "bind", lambda graph, rows, device, *memory, **more: bind(graph, rows, ("cpu", 0), *memory, **more)
    )
    graph = encoder._image_graph(cells, encoder._loaded)
    return cuda_passes.CudaPasses(graph, FakeStream(), batch_size, cuda_graph=False)


@pytest.mark.parametrize("kind", ["cpu", "as if on a GPU"])
def test_batches_come_back_in_order_and_are_not_mixed(encoder, monkeypatch, kind):
    passes = encoder.image_passes(4) if kind == "cpu" else passes_without_a_gpu(encoder, monkeypatch, 4)
    batches = [coloured(rows, seed) for seed, rows in enumerate((4, 4, 1, 3, 4, 2))]
    found = []
    for batch in batches:
        if passes.in_flight == passes.depth:
            found.append(passes.collect())
        for row in range(len(batch)):
            passes.put(batch[row : row + 1], row)
        passes.launch(len(batch))
    while passes.in_flight:
        found.append(passes.collect())
    assert len(found) == len(batches)
    for embeddings, batch in zip(found, batches, strict=True):
        np.testing.assert_allclose(embeddings, fake_model.image_embedding(batch), atol=1e-5)
    assert passes.busy_s > 0
    passes.close()


@pytest.mark.parametrize("kind", ["cpu", "as if on a GPU"])
def test_cells_come_in_their_rows(tiny_model_dir, monkeypatch, kind):
    encoder = Encoder(tiny_model_dir, provider="cpu", num_threads=1)
    size = encoder.info.image_size
    images = np.random.default_rng(0).integers(0, 256, (5, size, size, 3), dtype=np.uint8)
    expected = encoder.encode_images(images, cells=3)
    passes = encoder.image_passes(2, cells=3) if kind == "cpu" else passes_without_a_gpu(encoder, monkeypatch, 2, 3)
    found = []
    for first in (0, 2, 4):
        rows = images[first : first + 2]
        passes.put(rows, 0)
        passes.launch(len(rows))
        found.append(passes.collect())
    passes.close()
    dim = encoder.info.embed_dim
    assert [batch.shape for batch in found] == [(2, 10, dim), (2, 10, dim), (1, 10, dim)]
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-5)


def test_filling_goes_on_while_passes_run(encoder, monkeypatch):
    gate = threading.Event()
    run = CpuPasses._run

    def slow(self, images):
        assert gate.wait(10)
        return run(self, images)

    monkeypatch.setattr(CpuPasses, "_run", slow)
    passes = encoder.image_passes(2)
    batches = [coloured(2, seed) for seed in range(3)]
    for batch in batches[:2]:
        passes.put(batch, 0)
        passes.launch(2)
    passes.put(batches[2], 0)  # must not touch the batches that wait for the model
    assert (passes.in_flight, passes.ready) == (2, False)
    gate.set()
    for batch in batches[:2]:
        np.testing.assert_allclose(passes.collect(), fake_model.image_embedding(batch), atol=1e-5)
    passes.launch(2)
    np.testing.assert_allclose(passes.collect(), fake_model.image_embedding(batches[2]), atol=1e-5)
    passes.close()


def test_an_error_of_the_model_reaches_whoever_collects(encoder, monkeypatch):
    monkeypatch.setattr(CpuPasses, "_run", lambda self, images: 1 / 0)
    passes = encoder.image_passes(2)
    passes.put(coloured(1, 0), 0)
    passes.launch(1)
    with pytest.raises(ZeroDivisionError):
        passes.collect()
    passes.close()


@pytest.mark.may_skip  # needs a GPU, torch with CUDA and onnxruntime-gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_gpu_gives_the_cpus_cells(tiny_model_dir, cuda_graph):
    encoder = Encoder(tiny_model_dir, provider="cpu")
    size = encoder.info.image_size
    passes = Encoder(tiny_model_dir, provider="cuda", cuda_graph=cuda_graph).image_passes(4, cells=2)
    for seed in range(4):
        images = np.random.default_rng(seed).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
        passes.put(torch.from_numpy(images).cuda(), 0)
        passes.launch(4)
        np.testing.assert_allclose(passes.collect(), encoder.encode_images(images, cells=2), atol=1e-3)
    passes.close()


@pytest.mark.may_skip  # needs a GPU, torch with CUDA and onnxruntime-gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_gpu_gives_the_cpus_embeddings(tmp_path, cuda_graph):
    model_dir = fake_model.write(tmp_path / "model")
    passes = Encoder(model_dir, provider="cuda", cuda_graph=cuda_graph).image_passes(4)
    for seed, rows in enumerate((4, 4, 4, 4, 2)):
        images = coloured(rows, seed)
        passes.put(images[:1], 0)
        passes.put(torch.from_numpy(images[1:]).cuda(), 1)
        passes.launch(rows)
        np.testing.assert_allclose(passes.collect(), fake_model.image_embedding(images), atol=1e-3)
    passes.close()
