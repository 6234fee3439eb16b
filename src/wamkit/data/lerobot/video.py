"""Video files: frames at given times out of one, and one out of frames.

Only the frames asked for are turned into pixels, and far jumps seek instead of decoding what lies between.
It does not know about episodes or datasets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from wamkit_client.types import BadInput

from wamkit.data.lerobot.disk import RESTORE, Broken, expect, inside

NO_INDEX = f"{RESTORE} (an unfinished recording has no index)"
TOLERANCE = 1e-4
"""Seconds a frame's time may differ from the time asked for (LeRobot's tolerance)."""

SEEK_FRAMES = 16
"""To reach a frame further ahead than this the file is seeked; a nearer one is reached by decoding."""

CONTAINERS = "mov,matroska,avi,mpegts"
"""Kinds of files that hold a video themselves; playlists, which name other files, are not opened."""

ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
"""With more, colour conversion now and then gives other pixels on a busy machine; PyAV before 17 has only one."""

ENCODERS = {"libx264": "h264", "libx265": "hevc", "libsvtav1": "av1"}
"""Encoders that can write, and the names of their formats."""

REPEATABLE = {"libx264": {"x264-params": "mbtree=0:rc-lookahead=0"}, "libx265": {}, "libsvtav1": {}}
"""Options by which the same frames give the same file; with its macroblock tree x264 does not always (docs/log.md)."""


@dataclass(frozen=True)
class VideoCodec:
    """How videos are written. crf: quality, lower is better; g: frames from one key frame to the next.

    name: one of ENCODERS. preset: in that encoder's words. A short g makes random access cheap. There are no
    B-frames, so files join without encoding again.
    """

    name: str = "libx264"
    crf: int = 16
    g: int = 4
    preset: str = "veryfast"
    pix_fmt: str = "yuv420p"

    def __post_init__(self) -> None:
        if self.name not in ENCODERS:
            raise BadInput(f"video codec {self.name!r}; expected one of {list(ENCODERS)}")


def read_frames(path: Path, times: Sequence[float]) -> np.ndarray:
    """The frames at `times` (seconds, any order, repeats allowed): uint8 RGB [n, h, w, 3].

    Raises Broken where the file cannot be read or has no frame within 1e-4 s of a time.
    """
    wanted = sorted(set(times))
    pixels: dict[float, np.ndarray] = {}
    reformatter = VideoReformatter()  # one for all: making it costs more than converting a small frame
    with _opened(path) as container:
        try:
            for time, frame in zip(wanted, _frames_at(container, path, wanted), strict=True):
                pixels[time] = reformatter.reformat(frame, format="rgb24", **ONE_THREAD).to_ndarray()
        except av.FFmpegError as error:
            raise _broken(path, f"does not decode ({error.strerror})") from error
    sizes = sorted({f"{frame.shape[0]}x{frame.shape[1]}" for frame in pixels.values()})
    if len(sizes) > 1:
        raise _broken(path, f"has images of several sizes ({', '.join(sizes)})")
    return np.stack([pixels[time] for time in times])


def _frames_at(container: InputContainer, path: Path, wanted: Sequence[float]) -> Iterator[av.VideoFrame]:
    """The frame at each of the ascending times."""
    stream = container.streams.video[0]
    near = SEEK_FRAMES / float(stream.average_rate or 30)
    decoded, now = container.decode(stream), 0.0
    for time in wanted:
        if time > now + near:
            decoded = _seek(container, stream, time)
        frame = next((frame for frame in decoded if _time(frame) >= time - TOLERANCE), None)
        if frame is None or _time(frame) > time + TOLERANCE:
            got = "the file ends before" if frame is None else f"the next frame is at {_time(frame):.4f} s"
            raise _broken(path, f"no frame at {time:.4f} s ({got})")
        if frame.is_corrupt:  # the decoder went on with guessed pixels
            raise _broken(path, f"the frame at {time:.4f} s is damaged")
        now = _time(frame)
        yield frame


def _seek(container: InputContainer, stream: VideoStream, time: float) -> Iterator[av.VideoFrame]:
    """Frames in order from one at or before `time`, near it where the file has key frames near it."""
    assert stream.time_base is not None
    # a key frame is found by its decoding time, which may lie before its own: then look further back
    for back in (0.0, 1.0, time):
        container.seek(round(max(time - back, 0.0) / stream.time_base), stream=stream)
        decoded = container.decode(stream)
        first = next(decoded, None)
        if first is not None and _time(first) <= time + TOLERANCE:
            break
    return chain([first] if first else [], decoded)


def _time(frame: av.VideoFrame) -> float:
    """Seconds; a frame to which a broken file gives no time comes before all that can be asked for."""
    return -math.inf if frame.time is None else frame.time


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    with inside(path.parent):
        expect(path.parent, path.name)
    try:
        container = av.open(str(path), options={"format_whitelist": CONTAINERS})
    except PermissionError as error:
        raise _broken(path, "cannot be read (permission denied)") from error
    except av.FFmpegError as error:
        raise _broken(path, f"is truncated or no video ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise _broken(path, "has a damaged header") from error
    with container:
        streams = container.streams.video
        if not streams or streams[0].codec_context is None:
            raise _broken(path, "holds no video stream of a known codec")
        yield container


def _broken(path: Path, what: str) -> Broken:
    return Broken(str(path), what, NO_INDEX)


@dataclass(frozen=True)
class Scan:
    """What decoding a whole file found: every frame's time in seconds, the size of the images, the damage.

    damage: "" or what stopped the decoder or left a frame incomplete; `times` then holds the sound frames.
    """

    times: list[float]
    height: int
    width: int
    damage: str


def scan(path: Path) -> Scan:
    """Decode every frame of a file. Raises Broken where it cannot even be opened."""
    times: list[float] = []
    damage = ""
    with _opened(path) as container:
        stream = container.streams.video[0]
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    damage = damage or f"the frame at {_time(frame):.4f} s is damaged"
                else:
                    times.append(_time(frame))
        except av.FFmpegError as error:
            damage = f"after {len(times)} frames it does not decode ({error.strerror})"
        return Scan(times, stream.height, stream.width, damage)


def write_video(path: Path, frames: np.ndarray, fps: float, codec: VideoCodec) -> None:
    """An mp4 of uint8 RGB frames [t, h, w, 3], frame i at i / fps seconds.

    Raises BadInput where the frames have another form or the codec cannot take their size.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise BadInput(f"{path}: frames are {frames.dtype} {list(frames.shape)}; expected uint8 [t, h, w, 3]")
    height, width = frames.shape[1:3]
    if codec.pix_fmt == "yuv420p" and (height % 2 or width % 2):
        raise BadInput(
            f"{path}: frames are {height}x{width}; {codec.pix_fmt} takes even sizes only, render others"
        )
    options = {"crf": str(codec.crf), "g": str(codec.g), "preset": codec.preset, **REPEATABLE[codec.name]}
    reformatter = VideoReformatter()
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec.name, rate=rate(fps), options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, codec.pix_fmt
        stream.codec_context.max_b_frames = 0
        stream.codec_context.thread_count = 1
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(reformatter.reformat(frame, format=codec.pix_fmt, **ONE_THREAD)))
        container.mux(stream.encode(None))


def rate(fps: float) -> Fraction:
    """Frames per second as the fraction a container stores."""
    return Fraction(fps).limit_denominator(10_000)


def parameters(path: Path) -> bytes:
    """What a decoder must know before the first packet; files that agree in it can be joined."""
    with _opened(path) as container:
        return container.streams.video[0].codec_context.extradata or b""


def join_videos(paths: Sequence[Path], lengths: Sequence[int], target: Path) -> None:
    """One mp4 of several without encoding again; file i has lengths[i] frames.

    The files must be written by `write_video` with one fps and codec and equal `parameters`.
    """
    with av.open(str(target), "w", format="mp4") as sink, _opened(paths[0]) as template:
        # opaque: no encoder is opened; AV1's decoder and encoder differ in name
        out = sink.add_stream_from_template(template.streams.video[0], opaque=True)
        frames_before = 0
        for path, length in zip(paths, lengths, strict=True):
            with _opened(path) as source:
                stream = source.streams.video[0]
                assert stream.time_base is not None and stream.average_rate is not None
                shift = frames_before / (stream.average_rate * stream.time_base)
                if shift.denominator != 1:
                    raise _broken(path, f"has {stream.average_rate} frames/s in ticks of {stream.time_base}")
                for packet in source.demux(stream):
                    if packet.dts is None or packet.pts is None:
                        continue  # the empty packet that ends a stream
                    packet.pts += int(shift)
                    packet.dts += int(shift)
                    packet.stream = out
                    sink.mux(packet)
            frames_before += length
