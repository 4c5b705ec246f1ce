"""The bytes of a sound file as libsndfile is shown them: without a name, and with the sizes that a header leaves open.

libsndfile believes a header, where programs that write to a pipe cannot know a size, and where a file was cut later.
It takes a WAV whose data has size 0 for an empty one, refuses a CAF whose size is -1 or beyond its end, and reads as
much of an MP3 without an Info frame as its first frame's bit rate suggests. And it takes any file for samples without a
header if its name ends in `.au` or `.vox`.
"""

from __future__ import annotations

import os
from typing import IO

_CHUNKS = 1000  # looked at; files have about ten
_ENDLESS = 1 << 40  # bytes, of a file whose own length must not be believed
_OGG_PAGE = 65_307  # bytes at most
_TAG, _FIRST_FRAME = 10, 200  # bytes of an ID3 tag's header, and of an MPEG frame up to the end of its Info


class Source:
    """A file that `soundfile.SoundFile` can read from; it never raises, since nobody above C would see that.

    Args:
        file: an ordinary file, opened for reading.

    Attributes:
        size: its bytes.
        position: of the next byte.
        endless: whether the number of samples that libsndfile derives means nothing.
        cut: whether the file ends before it should, where libsndfile is not told so or does not say so.
        error: what ended a read: the system's, or a signal handler's, which libsndfile's callback would drop.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.size, self.position = file, os.fstat(file.fileno()).st_size, 0
        self.error: BaseException | None = None
        self._place, self._patch, self.cut = _open_size(file, self.size)
        self.cut = self.cut or _ogg_is_cut(file, self.size)
        self._length = _mpeg_length(file, self.size)
        self.endless = self._length == _ENDLESS

    def readinto(self, into: memoryview) -> int:
        """The next bytes; zeros where the file is longer than it is, which is where tags are looked for."""
        if self.size < self.position < self._length:
            into[:] = bytes(len(into))
            count = len(into)
        else:
            try:
                self.file.seek(self.position)
                count = self.file.readinto(into)  # type: ignore[attr-defined]
            except BaseException as error:
                self.error, count = error, 0
            for place, byte in enumerate(self._patch, start=self._place - self.position):
                if 0 <= place < count:
                    into[place : place + 1] = bytes([byte])
        self.position += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As in a file; before its start is nowhere, and the position stays."""
        place = offset + (0, self.position, self._length)[whence]
        self.position = place if place >= 0 else self.position
        return self.position

    def tell(self) -> int:
        """`position`."""
        return self.position


def _open_size(file: IO[bytes], size: int) -> tuple[int, bytes, bool]:
    """Where a WAV or CAF has the size of its samples, what stands there in truth, and whether the file is cut.

    Nothing, if what stands there is right or is put right by libsndfile.
    """
    nothing = (0, b"", False)
    file.seek(0)
    head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        place, width, closed = 12, 4, int.from_bytes(head[4:8], "little") + 8 == size
    elif head[:4] == b"caff":
        place, width, closed = 8, 8, False
    else:
        return nothing
    order = "little" if width == 4 else "big"
    for _ in range(_CHUNKS):
        file.seek(place)
        name, start = file.read(4), place + 4 + width
        length = int.from_bytes(file.read(width), order, signed=width == 8)  # type: ignore[arg-type]
        rest = size - start
        if name == b"data":
            wrong = (length == 0 and not closed) if width == 4 else (length < 0 or length > rest)
            held = min(rest, 2**32 - 1 if width == 4 else 2**63 - 1)
            return (place + 4, held.to_bytes(width, order), length > 0) if wrong and rest > 0 else nothing  # type: ignore[arg-type]
        if length < 0 or length > rest:
            return nothing
        place = start + length + (length % 2 if width == 4 else 0)
    return nothing


def _ogg_is_cut(file: IO[bytes], size: int) -> bool:
    """Whether an Ogg's last page is not all there, or is not marked as the last."""
    file.seek(0)
    if file.read(4) != b"OggS":
        return False
    file.seek(max(0, size - _OGG_PAGE))
    end = file.read(_OGG_PAGE)
    page = end[end.rfind(b"OggS") :]
    lengths = page[27 : 27 + page[26]] if len(page) > 27 else b""
    whole = len(lengths) > 0 and len(page) >= 27 + len(lengths) + sum(lengths)
    return not (whole and page[5] & 4)


def _mpeg_length(file: IO[bytes], size: int) -> int:
    """The length by which an MP3's samples are counted: its Info frame's, endless without one; others' is their size.

    With its own length a cut file draws a complaint of the decoder's on standard error.
    """
    file.seek(0)
    head = file.read(_TAG)
    start = 0
    if head[:3] == b"ID3" and len(head) == _TAG:
        start = _TAG + sum((byte & 0x7F) << (7 * power) for power, byte in enumerate(reversed(head[6:])))
    file.seek(start)
    frame = file.read(_FIRST_FRAME)
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE6 not in (0xE2, 0xE4, 0xE6):  # a sync word, and a layer
        return size
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    if not 0 <= place < len(frame) - 15:  # its flags and two numbers
        return _ENDLESS
    has_frames, has_bytes = frame[place + 7] & 1, frame[place + 7] & 2
    if not has_frames:
        return _ENDLESS
    stated = int.from_bytes(frame[place + 12 : place + 16], "big") if has_bytes else 0
    return max(size, start + stated)
