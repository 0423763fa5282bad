"""Tiles in, stitched maps out: reading, model and writing overlap; the model never waits if the host can keep up."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.errors import ModelError
from wsipipe.grid import Block, Tile
from wsipipe.maps import MapStore
from wsipipe.segmenter import Segmenter

logger = logging.getLogger(__name__)

ReadTile = Callable[[Tile], NDArray[np.uint8]]
PROBED_BATCHES = (1, 2, 4, 8, 16, 32)
PROBE_GAIN = 1.05  # a larger batch must be this much faster per tile, else the smaller one leaves memory free


@dataclass(frozen=True, slots=True)
class BlockStats:
    """What one block's inference took.

    Attributes:
        tiles: tiles inferred.
        batch_size: batch that the block ended with, after any halving.
        wait_s: seconds the model waited for tiles.
        model_s: seconds inside the model, waiting for other tasks' calls included.
        peak_vram: most memory of the device that was held so far, bytes; None without a GPU.
    """

    tiles: int
    batch_size: int
    wait_s: float
    model_s: float
    peak_vram: int | None = None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a model failed because its device is out of memory (torch.OutOfMemoryError, older CUDA errors)."""
    return type(error).__name__ == "OutOfMemoryError" or "out of memory" in str(error).lower()


class StoppedError(RuntimeError):
    """The run ends early; what was being inferred is left undone."""


class ModelLane:
    """A model on its device: one call at a time, whoever calls, with one batch size that all share.

    Two block tasks use a lane in turn: while one computes, the other reads tiles and writes maps, so that the device
    has no pause between them.

    Args:
        segmenter: the loaded model.
        batch_size: tiles per call; halves for good when the device runs out of memory.
        device: "cpu" or "cuda[:N]".
    """

    def __init__(self, segmenter: Segmenter, *, batch_size: int, device: str = "cpu") -> None:
        """Take the model over."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        self.segmenter = segmenter
        self.batch_size = batch_size
        self.device = device
        self.turn = threading.Lock()
        self.stopped = threading.Event()

    def maps(self, segmenter: Segmenter, images: NDArray[np.uint8]) -> Any:
        """Call a segmenter, the lane's or that one fitted to a slide, when it is its turn."""
        with self.turn:
            if self.stopped.is_set():
                raise StoppedError("the run was stopped")
            return segmenter.maps(images)

    def shrink(self, size: int) -> None:
        """Make batches no larger than size from now on."""
        with self.turn:
            self.batch_size = max(1, min(self.batch_size, size))


_Ahead = deque[tuple[Block, Tile, Future[NDArray[np.uint8]]]]  # tiles that are being read


class Inference:
    """A lane with the reader and writer threads of one slide. Use as a context manager; several threads may `run`.

    Args:
        lane: the model.
        segmenter: the lane's, or that one fitted to the slide.
        readers: threads that read tiles ahead.
    """

    def __init__(self, lane: ModelLane, segmenter: Segmenter | None = None, *, readers: int = 2) -> None:
        """Start the threads."""
        if readers < 1:
            raise ValueError(f"readers must be >= 1, got {readers}")
        self.lane = lane
        self.segmenter = segmenter or lane.segmenter
        self._ahead = 2 * lane.batch_size + readers
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")

    def __enter__(self) -> "Inference":
        """Return itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop the threads; what waits is dropped."""
        self._readers.shutdown(cancel_futures=True)
        self._writer.shutdown(cancel_futures=False)

    def run(self, blocks: Iterable[Block], read_tile: ReadTile, store: MapStore) -> Iterator[tuple[Block, BlockStats]]:
        """Infer blocks in order and yield each once all its cores are in the store.

        Batches never span blocks, so a block's maps do not depend on what ran before it. The tiles of the next block
        are read while this one is inferred.

        Raises:
            ModelError: the model failed or returned something else than maps; names the block and its tiles.
        """
        tiles = ((block, tile) for block in blocks for tile in block.tiles)
        ahead: _Ahead = deque()
        finishing: tuple[Block, BlockStats, list[Future[None]]] | None = None
        try:
            while self._fill(ahead, tiles, read_tile):
                block = ahead[0][0]
                stats, writes = self._infer_block(block, ahead, tiles, read_tile, store)
                if finishing:
                    yield _await_writes(*finishing)
                finishing = (block, stats, writes)
            if finishing:
                yield _await_writes(*finishing)
        finally:
            for _, _, future in ahead:
                future.cancel()

    def _fill(
        self,
        ahead: _Ahead,
        tiles: Iterator[tuple[Block, Tile]],
        read_tile: ReadTile,
    ) -> bool:
        while len(ahead) < self._ahead:
            following = next(tiles, None)
            if following is None:
                break
            block, tile = following
            ahead.append((block, tile, self._readers.submit(_read_channels, read_tile, tile)))
        return bool(ahead)

    def _infer_block(
        self,
        block: Block,
        ahead: _Ahead,
        tiles: Iterator[tuple[Block, Tile]],
        read_tile: ReadTile,
        store: MapStore,
    ) -> tuple[BlockStats, list[Future[None]]]:
        wait_s = model_s = 0.0
        writes: list[Future[None]] = []
        left = len(block.tiles)
        while left:
            size = min(left, self.lane.batch_size)
            started = time.perf_counter()
            batch: list[tuple[Tile, NDArray[np.uint8]]] = []
            while len(batch) < size:
                _, tile, future = ahead.popleft()
                batch.append((tile, future.result()))
                self._fill(ahead, tiles, read_tile)
            got = time.perf_counter()
            done = self._run_batch([tile for tile, _ in batch], _stacked([image for _, image in batch]))
            model_s += time.perf_counter() - got
            wait_s += got - started
            left -= size
            # Nothing else happens between two calls: who has the device keeps it, the other task waits ready.
            writes += [self._writer.submit(_write_cores, self.segmenter, tiles, maps, store) for tiles, maps in done]
        return BlockStats(len(block.tiles), self.lane.batch_size, wait_s, model_s), writes

    def _run_batch(self, tiles: list[Tile], images: NDArray[np.uint8]) -> list[tuple[list[Tile], Any]]:
        """Run (B, 3, S, S) images; on a full device run them in halves instead. Returns maps with their tiles."""
        try:
            output = self.lane.maps(self.segmenter, images)
        except StoppedError:
            raise
        except Exception as error:
            if not is_out_of_memory(error):
                raise _model_error(self.segmenter, tiles, error) from error
            if len(tiles) == 1:
                raise ModelError(
                    f"one tile of model {self.segmenter.name} does not fit the device; pass --device cpu: {error}"
                ) from error
            half = len(tiles) // 2
        else:
            _check_maps(self.segmenter, tiles, output)
            return [(tiles, output)]
        # Outside the handler: its traceback would keep the failed batch's tensors alive.
        self.lane.shrink(half)
        logger.warning("device out of memory: batch size is now %d", self.lane.batch_size)
        _release_device_memory()
        return self._run_batch(tiles[:half], images[:half]) + self._run_batch(tiles[half:], images[half:])


def _read_channels(read_tile: ReadTile, tile: Tile) -> NDArray[np.uint8]:
    """Read a tile as (3, S, S)."""
    image = read_tile(tile)
    out = np.empty((3, *image.shape[:2]), np.uint8)
    for k in range(3):
        cv2.extractChannel(image, k, out[k])
    return out


def _stacked(images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Stack (3, S, S) images to (B, 3, S, S)."""
    return images[0][None] if len(images) == 1 else np.stack(images)


def _await_writes(block: Block, stats: BlockStats, writes: list[Future[None]]) -> tuple[Block, BlockStats]:
    for write in writes:
        write.result()
    return block, stats


def _model_error(segmenter: Segmenter, tiles: list[Tile], error: Exception) -> ModelError:
    where = ", ".join(f"row {tile.row} col {tile.col}" for tile in tiles)
    return ModelError(f"model {segmenter.name} failed on tile {where}: {type(error).__name__}: {error}")


def _has_nan(output: Any) -> bool:
    """Whether maps hold NaN; only floating point ones can."""
    return "float" in str(output.dtype) and bool((output != output).any())


def _check_maps(segmenter: Segmenter, tiles: list[Tile], output: Any) -> None:
    expected = (len(tiles), len(segmenter.map_names), segmenter.tile, segmenter.tile)
    if tuple(output.shape) != expected or "uint8" not in str(output.dtype):
        got = f"{tuple(output.shape)} {output.dtype}{' with NaN' if _has_nan(output) else ''}"
        raise _model_error(segmenter, tiles, ValueError(f"maps must be {expected} uint8, got {got}"))


def _write_cores(segmenter: Segmenter, tiles: list[Tile], output: Any, store: MapStore) -> None:
    """Store each tile's core of (B, C, S, S) maps; cropping happens on the device, only cores travel."""
    side, halo = segmenter.tile, segmenter.halo
    cores = output[:, :, halo : side - halo, halo : side - halo]
    host = np.asarray(cores.cpu() if hasattr(cores, "cpu") else cores)
    for maps, tile in zip(host, tiles, strict=True):
        store.write(tile.core, maps[:, : tile.core.height, : tile.core.width])


def _release_device_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def choose_batch_size(segmenter: Segmenter, device: str) -> int:
    """Return the batch that gives the most tiles per second; 1 on a CPU, probed on a GPU.

    Larger batches are tried until they stop paying (PROBE_GAIN) or do not fit.
    """
    if not device.startswith("cuda"):
        return 1
    best, best_rate = 1, 0.0
    for size in PROBED_BATCHES:
        try:
            rate = _tiles_per_second(segmenter, size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            _release_device_memory()
            break
        if rate < best_rate * PROBE_GAIN:
            break
        best, best_rate = size, rate
    return best


def _tiles_per_second(segmenter: Segmenter, size: int) -> float:
    images = np.full((size, 3, segmenter.tile, segmenter.tile), 200, np.uint8)
    for _ in range(2):  # the first call compiles and allocates
        started = time.perf_counter()
        output = segmenter.maps(images)
        if hasattr(output, "cpu"):
            output[:, :, :1, :1].cpu()
    return size / (time.perf_counter() - started)
