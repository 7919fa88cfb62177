"""Streams of frames, pictures as frames, and the two calls of the library."""

import threading
import time
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import pytest
from skimage import data

import restore_plugin
from restore_plugin.errors import InputError, NothingFound
from restore_plugin.pipeline import ArrayFrame, PictureRestorer, ahead, flow, with_neighbours
from restore_plugin.regions import UNCHANGED, clip, regions_under, restore_frame, whole
from restore_plugin.types import Box, Frame, Needs, Region


class Counter:
    """Numbers up to `count`; knows how many were taken, raises at the end if told to."""

    def __init__(self, count: int, error: BaseException | None = None) -> None:
        self.count, self.error, self.made = count, error, 0

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            self.made += 1
            yield number
        if self.error:
            raise self.error


def reached(counter: Counter, count: int) -> int:
    """How far it ran, after it had all the time to come to `count` and some more to run on."""
    end = time.monotonic() + 20
    while counter.made < count and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.3)
    return counter.made


def threads() -> int:
    return sum(thread.name == "ahead" for thread in threading.enumerate())


def test_ahead_keeps_the_order() -> None:
    assert list(ahead(range(500), 3)) == list(range(500))
    assert list(ahead([], 1)) == []
    assert list(ahead([None, 0, False], 2)) == [None, 0, False]
    assert threads() == 0


@pytest.mark.parametrize("count", [1, 4])
def test_ahead_is_bounded(count: int) -> None:
    source = Counter(100)
    items = ahead(source, count)
    assert source.made == 0  # nothing happens before it is asked for
    assert next(items) == 0
    # one taken, `count` waiting, one in the thread's hand
    assert reached(source, 1 + count + 1) == 1 + count + 1
    items.close()


def test_ahead_raises_the_producers_error_in_its_place() -> None:
    items = ahead(Counter(3, OSError("disk")), 8)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="disk"):
        next(items)
    assert threads() == 0


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_closing_ahead_early_ends_its_thread(taken: int) -> None:
    source = Counter(1000)
    items = ahead(source, 2)
    for _ in range(taken):
        next(items)
    items.close()
    assert threads() == 0
    assert source.made <= taken + 3


def test_flow_writes_everything_in_order() -> None:
    out: list[int] = []
    flow(range(200), lambda number: number * 2, out.append)
    assert out == list(range(0, 400, 2))
    assert threads() == 0


def test_flow_overlaps_its_parts() -> None:
    """A work that waits until a later item was read hangs (and is cut off) unless both run side by side."""
    read = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        read.set()
        yield 1

    def work(number: int) -> int:
        assert read.wait(20)
        return number

    out: list[int] = []
    flow(items(), work, out.append)
    assert out == [0, 1]


@pytest.mark.parametrize("where", ["read", "work", "write"])
def test_an_error_anywhere_ends_the_flow(where: str) -> None:
    source = Counter(10_000 if where != "read" else 5, ZeroDivisionError("here"))
    out: list[float] = []

    def write(number: float) -> None:
        out.append(1 / (3 - number) if where == "write" else number)

    with pytest.raises(ZeroDivisionError):
        flow(source, lambda number: 1 / (3 - number) if where == "work" else number, write, depth=2)
    assert len(out) == (5 if where == "read" else 3)
    assert threads() == 0
    assert source.made < 20


def number(item: int) -> np.ndarray:
    return np.full((1, 1, 3), item, np.float32)


def windows(count: int, context: int) -> list[tuple[int, ...]]:
    """Of the numbers up to `count`: the neighbours that each comes with."""
    found = list(with_neighbours(range(count), number, context))
    assert [item for item, _ in found] == list(range(count))
    return [tuple(int(pixels[0, 0, 0]) for pixels in neighbours) for _, neighbours in found]


@pytest.mark.parametrize("context", [0, 1, 2, 3])
@pytest.mark.parametrize("count", range(9))
def test_neighbours_are_in_order_and_mirrored_at_the_ends(count: int, context: int) -> None:
    """As numpy pads, also what is shorter than the window."""
    padded = np.pad(np.arange(count), context, mode="reflect") if count else np.empty(0)
    around = [tuple(np.delete(padded[at : at + 2 * context + 1], context)) for at in range(count)]
    assert windows(count, context) == around


def test_neighbours_by_hand() -> None:
    assert windows(4, 0) == [()] * 4
    assert windows(4, 1) == [(1, 1), (0, 2), (1, 3), (2, 2)]
    assert windows(4, 2) == [(2, 1, 1, 2), (1, 0, 2, 3), (0, 1, 3, 2), (1, 2, 2, 1)]
    assert windows(2, 2) == [(0, 1, 1, 0), (1, 0, 0, 1)]
    assert windows(1, 2) == [(0, 0, 0, 0)]
    assert windows(0, 2) == []


@pytest.mark.parametrize("context", [1, 2, 3])
def test_neighbours_are_read_once_before_their_item_is_handed_out(context: int) -> None:
    """And no further ahead than is asked for, or kept longer than is needed."""
    source, read = Counter(20), []

    def reading(item: int) -> np.ndarray:
        read.append(item)
        return number(item)

    for item, neighbours in with_neighbours(source, reading, context):
        assert read == list(range(min(20, item + context + 1)))
        assert source.made == len(read)
        assert all(abs(int(each[0, 0, 0]) - item) <= context for each in neighbours)
    assert read == list(range(20))


def test_restoring_an_item_leaves_its_neighbours_as_they_were() -> None:
    frames = [ArrayFrame(np.full((4, 4, 3), value, np.uint8)) for value in (10, 20, 30, 40)]

    def read(frame: ArrayFrame) -> np.ndarray:
        return np.round(frame.read_rgb(Box(0, 0, 4, 4)) * 255)

    seen = []
    for frame, neighbours in with_neighbours(frames, read, 1):
        seen.append([int(pixels[0, 0, 0]) for pixels in neighbours])
        frame.image[:] = 200
    assert seen == [[20, 20], [10, 30], [20, 40], [30, 30]]


def test_without_context_nothing_is_read() -> None:
    def read(item: int) -> np.ndarray:
        raise AssertionError(item)

    assert list(with_neighbours(range(3), read, 0)) == [(0, ()), (1, ()), (2, ())]


def test_an_error_of_reading_neighbours_is_raised() -> None:
    with pytest.raises(OSError, match="disk"):
        list(with_neighbours(Counter(5, OSError("disk")), number, 2))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_array_frame_reads_and_writes(dtype: type) -> None:
    random = np.random.default_rng(1)
    scale = 1.0 if dtype is np.float32 else float(np.iinfo(dtype).max)
    image = (random.random((20, 30, 3)) * scale).astype(dtype)
    before = image.copy()
    frame = ArrayFrame(image, 7)
    assert (frame.width, frame.height, frame.index, frame.pts) == (30, 20, 7, None)
    box = Box(4, 3, 10, 12)
    read = frame.read_rgb(box)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, image[3:15, 4:14] / scale, atol=1e-6)
    mask = random.random((12, 10)) < 0.5
    frame.write_rgb(box, read, mask)  # what was read, written again, is the same to the bit
    np.testing.assert_array_equal(image, before)
    frame.write_rgb(box, np.full((12, 10, 3), 0.3, np.float32), mask)
    changed = np.zeros((20, 30), bool)
    changed[3:15, 4:14] = mask
    np.testing.assert_array_equal(image[~changed], before[~changed])
    assert np.abs(image[changed] / scale - 0.3).max() <= 0.5 / scale + 1e-6


def test_array_frame_clips_instead_of_wrapping() -> None:
    image = np.full((2, 2, 3), 9, np.uint8)
    rgb = np.array([[[-0.1] * 3, [1.1] * 3]] * 2, np.float32)
    ArrayFrame(image).write_rgb(Box(0, 0, 2, 2), rgb, np.ones((2, 2), bool))
    assert image[:, 0].max() == 0
    assert image[:, 1].min() == 255


def test_array_frame_luma_as_opencv() -> None:
    picture = data.astronaut()[:64, :64]
    expected = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) / 255
    for image in (picture, picture.astype(np.uint16) * 257, (picture / 255).astype(np.float32)):
        assert np.abs(ArrayFrame(image).luma() - expected).max() < 0.6 / 255


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float64),
        np.zeros((8, 8, 3), np.int32),
        np.zeros((0, 8, 3), np.uint8),
    ],
    ids=lambda image: f"{image.dtype}{image.shape}",
)
def test_array_frame_refuses(image: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected RGB of shape"):
        ArrayFrame(image)


def test_clip() -> None:
    region = Region(Box(-5, 10, 20, 30), 3, (8.0, 8.0), (-5.0, 10.0))
    inside = clip(region, 100, 25)
    assert inside is not None
    assert (inside.box, inside.phase, inside.id) == (Box(0, 10, 15, 15), (-5.0, 10.0), 3)
    assert inside.mask().all()
    assert clip(region.shift(-200, 0), 100, 25) is None
    assert clip(region.shift(5, 0), 100, 100) == region.shift(5, 0)


@pytest.mark.parametrize("seed", range(20))
def test_regions_under_a_mask_are_the_mask(seed: int) -> None:
    """Blobs with holes and islands in them: every True pixel is in one region, every other in none."""
    random = np.random.default_rng(seed)
    soft = cv2.GaussianBlur(random.random((40, 50)), (0, 0), random.uniform(0.3, 3))
    mask = soft > np.quantile(soft, random.uniform(0.1, 0.9))
    covered = np.zeros(mask.shape, int)
    for region in regions_under(mask):
        covered[region.box.slices] += region.mask()
    np.testing.assert_array_equal(covered, mask)


class Grey:
    """A restorer that paints everything grey, masked or not, and remembers the crops it got."""

    needs = Needs()

    def __init__(self) -> None:
        self.crops: list[tuple[int, ...]] = []

    def margin(self, region: Region) -> tuple[int, int]:
        return 6, 4

    def __call__(
        self,
        pixels: np.ndarray,
        mask: np.ndarray | None = None,
        neighbours: Sequence[np.ndarray] = (),
        region: Region | None = None,
    ) -> np.ndarray:
        self.crops.append(pixels.shape)
        return np.full_like(pixels, 0.5)


class Found:
    """A finder that finds what it is told, and measures every mask but small ones."""

    def __init__(self, *regions: Region) -> None:
        self.regions = list(regions)

    def find(self, frame: Frame) -> list[Region]:
        return self.regions

    def measure(self, frame: Frame, mask: np.ndarray) -> Region | None:
        if mask.sum() < 10:
            return None
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        return Region(Box(x, y, width, height))


IMAGE = data.astronaut()[:60, :80]


def changed(out: np.ndarray) -> set[tuple[int, int, int, int]]:
    """Boxes of the changed parts."""
    parts = (out != IMAGE).any(2).astype(np.uint8)
    count, labels = cv2.connectedComponents(parts)
    return {cv2.boundingRect((labels == label).astype(np.uint8)) for label in range(1, count)}


def test_restores_what_is_given_found_or_masked() -> None:
    before = IMAGE.copy()
    first, second = Region(Box(10, 10, 20, 15)), Region(Box(50, 30, 50, 50))
    mask = np.zeros((60, 80), bool)
    mask[10:25, 10:30] = mask[30:60, 50:80] = True
    expected = {(10, 10, 20, 15), (50, 30, 30, 30)}
    for finder, where in ((None, [first, second]), (Found(first, second), None), (Found(), mask)):
        restorer = Grey()
        assert changed(PictureRestorer(restorer, finder)(IMAGE, where)) == expected
        assert sorted(restorer.crops) == [(4 + 15 + 4, 6 + 20 + 6, 3), (4 + 30, 6 + 30, 3)]
    np.testing.assert_array_equal(IMAGE, before)


class Remembering(ArrayFrame):
    """Knows which pixels were written."""

    def __init__(self, image: np.ndarray) -> None:
        super().__init__(image)
        self.written = np.zeros(image.shape[:2], int)

    def write_rgb(self, box: Box, rgb: np.ndarray, mask: np.ndarray) -> None:
        self.written[box.slices] += mask
        super().write_rgb(box, rgb, mask)


class Brighter:
    """Adds an amount to every third column, and nothing to the others; remembers its neighbours."""

    needs = Needs(context=1)

    def __init__(self, amount: float) -> None:
        self.amount = amount
        self.neighbours: list[np.ndarray] = []

    def margin(self, region: Region) -> tuple[int, int]:
        return 3, 3

    def __call__(
        self,
        pixels: np.ndarray,
        mask: np.ndarray | None = None,
        neighbours: Sequence[np.ndarray] = (),
        region: Region | None = None,
    ) -> np.ndarray:
        self.neighbours += neighbours
        out = pixels.copy()
        out[:, ::3, 1] += self.amount
        return out


@pytest.mark.parametrize(
    ("amount", "counts"), [(0.1, True), (-0.1, True), (2 * UNCHANGED, True), (UNCHANGED / 2, False)]
)
def test_only_changed_pixels_are_written(amount: float, counts: bool) -> None:
    frame = Remembering(np.full((20, 30, 3), 0.5, np.float32))
    assert restore_frame(frame, whole(frame), Brighter(amount)) == 1
    expected = np.zeros((20, 30), int)
    expected[:, ::3] = counts
    np.testing.assert_array_equal(frame.written, expected)


def test_only_changed_pixels_of_the_region_are_written() -> None:
    frame = Remembering(np.full((20, 30, 3), 0.5, np.float32))
    triangle = Region(Box(6, 5, 12, 10), outline=(((6, 5), (17, 5), (6, 14)),))
    restore_frame(frame, [triangle], Brighter(0.1))
    expected = np.zeros((20, 30), bool)
    expected[triangle.box.slices] = triangle.mask()
    expected[:, np.arange(30) % 3 != 0] = False  # the crop begins at column 3
    np.testing.assert_array_equal(frame.written, expected)


def test_neighbours_are_cut_as_the_frame_is() -> None:
    image = np.random.default_rng(0).random((20, 30, 3)).astype(np.float32)
    restorer, others = Brighter(0.1), [image + 1, image + 2]
    restore_frame(ArrayFrame(image.copy()), [Region(Box(10, 8, 5, 4))], restorer, others)
    for cut, other in zip(restorer.neighbours, others, strict=True):
        np.testing.assert_array_equal(cut, other[5:15, 7:18])


@pytest.mark.parametrize("size", [(1, 1), (20, 30)])
def test_whole_is_every_pixel(size: tuple[int, int]) -> None:
    (region,) = whole(ArrayFrame(np.zeros((*size, 3), np.uint8)))
    assert region.box == Box(0, 0, size[1], size[0])
    assert region.mask().shape == size
    assert region.mask().all()


def test_a_method_that_needs_no_place_restores_all() -> None:
    out = PictureRestorer(Grey(), None, needs_place=False)(IMAGE)
    assert (out == 128).all()
    assert changed(PictureRestorer(Grey(), None, needs_place=False)(IMAGE, [Region(Box(3, 4, 5, 6))])) == {(3, 4, 5, 6)}


def test_views_and_strange_strides_are_taken() -> None:
    region = [Region(Box(10, 10, 20, 15))]
    expected = PictureRestorer(Grey(), None)(IMAGE, region)
    flipped = np.ascontiguousarray(IMAGE[:, ::-1])[:, ::-1]
    flipped.flags.writeable = False
    np.testing.assert_array_equal(PictureRestorer(Grey(), None)(flipped, region), expected)
    np.testing.assert_array_equal(PictureRestorer(Grey(), None)(np.asfortranarray(IMAGE), region), expected)


@pytest.mark.parametrize(
    ("finder", "where", "error", "message"),
    [
        (Found(), None, NothingFound, "nothing to restore"),
        (Found(), [], NothingFound, "nothing to restore"),
        (Found(), np.zeros((60, 80), bool), NothingFound, "nothing to restore"),
        (None, None, InputError, "pass a mask or regions"),
        (Found(), np.ones((80, 60), bool), InputError, r"\(60, 80\)"),
        (Found(), np.ones((60, 80), np.uint8), InputError, "uint8"),
        (Found(), np.eye(60, 80, dtype=bool) & (np.arange(80) < 5), InputError, "could be measured"),
    ],
)
def test_picture_restorer_errors(
    finder: Found | None, where: np.ndarray | list[Region] | None, error: type[Exception], message: str
) -> None:
    restorer = Grey()
    with pytest.raises(error, match=message):
        PictureRestorer(restorer, finder)(IMAGE, where)
    assert restorer.crops == []


def mosaicked(block: int) -> np.ndarray:
    picture = data.astronaut()[:320, 80:400].copy()
    part = picture[32:192, 80:240]
    small = cv2.resize(part, (160 // block, 160 // block), interpolation=cv2.INTER_AREA)
    part[:] = cv2.resize(small, (160, 160), interpolation=cv2.INTER_NEAREST)
    return picture


def test_process_restores_a_stream() -> None:
    clean = data.coffee()[:320, :320]
    frames = [mosaicked(8), clean, mosaicked(16)]
    before = [frame.copy() for frame in frames]
    out = list(restore_plugin.process(iter(frames), "demosaic"))
    assert len(out) == 3
    for frame, original in zip(frames, before, strict=True):
        np.testing.assert_array_equal(frame, original)
    np.testing.assert_array_equal(out[1], clean)
    truth = data.astronaut()[:320, 80:400].astype(float)
    for index in (0, 2):
        assert out[index].dtype == np.uint8
        assert np.square(out[index] - truth).mean() < 0.95 * np.square(frames[index] - truth).mean()
        far = np.ones((320, 320), bool)
        far[26:198, 74:246] = False
        np.testing.assert_array_equal(out[index][far], frames[index][far])


def test_process_raises_what_is_wrong_with_a_frame() -> None:
    out = restore_plugin.process([np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)], "demosaic")
    assert next(out).shape == (64, 64, 3)
    with pytest.raises(InputError, match="expected RGB"):
        next(out)
    assert threads() == 0


@pytest.mark.parametrize("name", ["demosaik", "", "mosaic"])
def test_load_names_what_there_is(name: str) -> None:
    with pytest.raises(InputError, match=r"demosaic.*cellnet.*bicubic"):
        restore_plugin.load(name)
