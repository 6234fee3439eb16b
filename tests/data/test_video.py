"""Video: what is written comes back, jumps land where plain decoding lands, and damage is an error."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from wamkit_client.types import BadInput

from tests.data.recording import pictures
from wamkit.data.lerobot import video
from wamkit.data.lerobot.disk import Broken
from wamkit.data.lerobot.video import (
    VideoCodec,
    join_videos,
    parameters,
    read_frames,
    scan,
    write_video,
)

FPS = 12.5


def written(path: Path, frames: np.ndarray, codec: VideoCodec = VideoCodec()) -> Path:  # noqa: B008
    write_video(path, frames, FPS, codec)
    return path


def times(steps: list[int]) -> list[float]:
    return [step / FPS for step in steps]


@pytest.mark.parametrize("codec", [VideoCodec(), VideoCodec(name="libsvtav1", crf=20, g=2, preset="10")])
def test_round_trip(tmp_path: Path, codec: VideoCodec) -> None:
    frames = np.repeat(
        np.repeat(pictures(0, 40), 2, axis=1), 2, axis=2
    )  # AV1 encoders take 64 pixels or more
    path = written(tmp_path / "a.mp4", frames, codec)
    back = read_frames(path, times(list(range(40))))
    assert back.shape == frames.shape and back.dtype == np.uint8
    assert np.abs(back.astype(int) - frames).mean() < 3


def foreign(path: Path, frames: np.ndarray) -> Path:
    """As other tools write it: one key frame in a hundred, B-frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=video.rate(FPS), options={"g": "100", "bf": "3"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("make", [written, foreign])
def test_any_order_gives_the_frames_of_plain_decoding(tmp_path: Path, make) -> None:
    path = make(tmp_path / "a.mp4", pictures(0, 250))
    everything = read_frames(path, times(list(range(250))))
    for steps in ([249], [0], [120, 124, 128], [5, 230, 5, 90, 101], [99, 100, 101], [1, 18, 35, 150]):
        np.testing.assert_array_equal(read_frames(path, times(steps)), everything[steps])


@pytest.mark.parametrize("codec", [VideoCodec(), VideoCodec(name="libsvtav1", preset="10")])
def test_joined_videos_keep_every_frame(tmp_path: Path, codec: VideoCodec) -> None:
    parts = [
        written(tmp_path / f"{e}.mp4", np.tile(pictures(e, length), (2, 2, 1)), codec)
        for e, length in enumerate((7, 3, 30))
    ]
    assert len({parameters(part) for part in parts}) == 1
    join_videos(parts, [7, 3, 30], tmp_path / "all.mp4")
    np.testing.assert_allclose(scan(tmp_path / "all.mp4").times, np.arange(40) / FPS, atol=1e-6)
    alone = [read_frames(part, times(list(range(n)))) for part, n in zip(parts, (7, 3, 30), strict=True)]
    np.testing.assert_array_equal(
        read_frames(tmp_path / "all.mp4", times(list(range(40)))), np.concatenate(alone)
    )


def test_a_frame_that_is_not_there(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4", pictures(0, 20))
    with pytest.raises(Broken, match=r"a\.mp4: no frame at 1\.6000 s \(the file ends before\)"):
        read_frames(path, [20 / FPS])
    with pytest.raises(Broken, match=r"no frame at 0\.1200 s \(the next frame is at 0\.1600 s\)"):
        read_frames(path, [1.5 / FPS])


def test_broken_files_are_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4", pictures(0, 60))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Broken, match=r"a\.mp4: is truncated or no video"):
        read_frames(path, [0.0])
    with pytest.raises(Broken, match=r"b\.mp4: is missing"):
        read_frames(tmp_path / "b.mp4", [0.0])
    (tmp_path / "c.mp4").write_text("no video")
    with pytest.raises(Broken, match=r"c\.mp4"):
        read_frames(tmp_path / "c.mp4", [0.0])


def test_a_list_of_other_files_is_no_video(tmp_path: Path) -> None:
    written(tmp_path / "other.mp4", pictures(0, 4))
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    with pytest.raises(Broken, match=r"a\.mp4: is truncated or no video"):
        read_frames(tmp_path / "a.mp4", [0.0])


def test_guessed_pixels_are_an_error(tmp_path: Path) -> None:
    """Decoders go on after damage with what they guess; a policy must not learn from that."""
    path = written(tmp_path / "a.mp4", pictures(0, 60), VideoCodec(crf=1, g=60))
    damaged = bytearray(path.read_bytes())
    middle = damaged.index(b"moov") // 2
    damaged[middle : middle + 64] = bytes(64)
    path.write_bytes(bytes(damaged))
    found = scan(path)
    assert found.damage and len(found.times) < 60
    with pytest.raises(Broken, match=r"damaged|decode"):
        read_frames(path, times(list(range(60))))


def test_pictures_of_several_sizes_are_an_error(tmp_path: Path) -> None:
    """Two H.264 streams one after the other; their decoder goes on with the new size."""
    raw = b""
    for number, size in enumerate((32, 64)):
        file = tmp_path / f"{number}.h264"
        with av.open(str(file), "w", format="h264") as container:
            stream = container.add_stream("libx264", rate=10, options={"g": "1"})
            stream.height = stream.width = size
            stream.codec_context.max_b_frames = 0
            for _ in range(3):
                pixels = np.zeros((size, size, 3), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
        raw += file.read_bytes()
    (tmp_path / "both.h264").write_bytes(raw)
    both = tmp_path / "both.mp4"
    with av.open(str(tmp_path / "both.h264")) as source, av.open(str(both), "w", format="mpegts") as sink:
        out = sink.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = video.Fraction(1, 10), out
            sink.mux(packet)
    seconds = scan(both).times
    assert len(seconds) == 6
    with pytest.raises(Broken, match=r"images of several sizes \(32x32, 64x64\)"):
        read_frames(both, seconds)


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="even sizes only"):
        written(tmp_path / "a.mp4", np.zeros((2, 33, 48, 3), np.uint8))
    with pytest.raises(BadInput, match="expected uint8"):
        written(tmp_path / "a.mp4", np.zeros((2, 32, 48, 3), np.float32))
    with pytest.raises(BadInput, match="expected one of"):
        VideoCodec(name="gif")
