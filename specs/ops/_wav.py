"""WAV files: what their header declares, checked before a sample is read, and their samples.

The format is Microsoft's and IBM's RIFF WAVE (1991), with ``WAVE_FORMAT_EXTENSIBLE`` (2001). No
number of the file is believed. Lines that are copied into ``processing.py`` stay within 88
columns.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from specs.ops._source import MAX_BYTES, MAX_SECONDS, BadInput, check_finite

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Wav", "check_sound", "open_wav", "wav_samples"]

SEND_WAV = "send a WAV file: PCM of 8, 16, 24 or 32 bits, or floats of 32 or 64"
PCM = 1
IEEE_FLOAT = 3
EXTENSIBLE = 0xFFFE
EXTENSIBLE_SIZE = 40
"""Bytes of the chunk ``fmt`` in the extensible form."""
FORMAT_SIZE = 16
"""Its bytes in the first form."""
SUBFORMAT = bytes.fromhex("000000001000800000aa00389b71")
"""How the GUID of a subformat goes on behind the number of the encoding."""
ENCODINGS = {PCM: (8, 16, 24, 32), IEEE_FLOAT: (32, 64)}
"""Bits of a sample, by the number of the encoding."""
UNKNOWN_SIZE = 0xFFFFFFFF
"""What writers that cannot go back declare: the samples go on to the end of the file."""
MAX_RATE = 768_000
"""Hz; the fastest converters that are sold."""
MAX_CHUNKS = 1_000
LOUDEST = 16
"""Times full scale: floats may exceed it, integers stored as floats exceed this."""
OTHERS = {
    b"ID3": "an MP3 file",
    b"\xff\xfb": "an MP3 file",
    b"OggS": "an Ogg file",
    b"fLaC": "a FLAC file",
    b"FORM": "an AIFF file",
    b"\x1aE\xdf\xa3": "a WebM or Matroska file",
    b"RF64": "an RF64 file",
    b"RIFX": "a RIFX file",
}
"""First bytes of what is sent instead."""


class Wav(NamedTuple):
    """What the header of a WAV file declares, after every check.

    ``encoding`` is PCM or IEEE_FLOAT; ``start`` is where the samples begin.
    """

    encoding: int
    bits: int
    channels: int
    rate: int
    start: int
    frames: int


def check_sound(data: object) -> bytes:
    """Refuse what is no WAV file, or one of more than MAX_BYTES."""
    if not isinstance(data, bytes | bytearray):
        message = f"the item is {type(data).__name__}, expected the bytes of a file"
        raise BadInput("not_audio", message, SEND_WAV)
    if not data:
        raise BadInput("not_audio", "the item is empty, 0 bytes", SEND_WAV)
    if len(data) > MAX_BYTES:
        message = f"the file has {len(data)} bytes, at most {MAX_BYTES} are taken"
        raise BadInput("too_large", message, "send a smaller file")
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        known = [name for begin, name in OTHERS.items() if data.startswith(begin)]
        found = f"is {known[0]}" if known else f"begins with {bytes(data[:12])!r}"
        message = f"this is no WAV file: it {found}"
        raise BadInput("not_audio", message, SEND_WAV)
    return bytes(data)


def open_wav(data: bytes) -> Wav:
    """Read the header; refuse by what it declares, before memory is spent on samples."""
    form, start, size = find_chunks(data)
    encoding, bits, channels, rate = read_format(form)
    frame = channels * bits // 8
    left = len(data) - start
    if size == UNKNOWN_SIZE:
        size = left - left % frame
    if size > left or size % frame:
        message = f"the file declares {size} bytes of samples, {left} are there"
        if size <= left:
            message = f"{size} bytes of samples are no whole number of {frame} bytes"
        raise BadInput("corrupt_audio", message, "send the whole file")
    frames = size // frame
    if not frames:
        message = "the file holds no samples"
        raise BadInput("empty_audio", message, "send at least one sample")
    if frames > MAX_SECONDS * rate:
        length = f"{frames / rate:.1f} s"
        message = f"the sound lasts {length}, at most {MAX_SECONDS} s are taken"
        raise BadInput("too_large", message, "send a shorter sound")
    return Wav(encoding, bits, channels, rate, start, frames)


def find_chunks(data: bytes) -> tuple[bytes, int, int]:
    """Return the chunk ``fmt``, where the samples begin and the bytes declared for them."""
    at, form = 12, b""
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            break
        name, size = struct.unpack_from("<4sI", data, at)
        at += 8
        if name == b"data":
            return form, at, size
        if name == b"fmt ":
            form = data[at : at + min(size, EXTENSIBLE_SIZE)]
        at += size + size % 2
    message = "the file ends before its samples: there is no chunk 'data'"
    raise BadInput("corrupt_audio", message, "send the whole file")


def read_format(form: bytes) -> tuple[int, int, int, int]:
    """Return encoding, bits, channels and rate that the chunk ``fmt`` declares."""
    if len(form) < FORMAT_SIZE:
        message = f"the chunk 'fmt ' before the samples has {len(form)} bytes"
        raise BadInput("corrupt_audio", message, "write the file again")
    encoding, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", form)
    if encoding == EXTENSIBLE and form[26:] == SUBFORMAT:
        encoding = int.from_bytes(form[24:26], "little")
    if bits not in ENCODINGS.get(encoding, ()):
        message = f"the samples are {bits} bits in encoding {encoding:#06x}"
        raise BadInput("unsupported_audio", message, SEND_WAV)
    if not 1 <= rate <= MAX_RATE:
        message = f"the file declares {rate} samples a second, expected 1 to {MAX_RATE}"
        raise BadInput("corrupt_audio", message, "write the file again")
    if not channels or block != channels * bits // 8:
        message = f"{channels} channels of {bits} bits are no blocks of {block} bytes"
        raise BadInput("corrupt_audio", message, "write the file again")
    return encoding, bits, channels, rate


def wav_samples(data: bytes, wav: Wav) -> NDArray[Any]:
    """Return the samples [frames, channels], float32; full scale is 1.

    Integers are divided by 2^(bits-1), as torchaudio and soundfile do; 8 bits are unsigned
    around 128. Floats are kept.
    """
    count = wav.frames * wav.channels
    if wav.encoding == IEEE_FLOAT:
        floats = np.frombuffer(data, f"<f{wav.bits // 8}", count, wav.start)
        samples = check_level(floats)
    elif wav.bits == 8:  # noqa: PLR2004 - the only unsigned one
        octets = np.frombuffer(data, np.uint8, count, wav.start)
        samples = (octets.astype(np.float32) - 128) / np.float32(128)
    elif wav.bits == 24:  # noqa: PLR2004 - numpy has no such integer
        samples = from_24_bits(np.frombuffer(data, np.uint8, count * 3, wav.start))
    else:
        whole = np.frombuffer(data, f"<i{wav.bits // 8}", count, wav.start)
        samples = whole.astype(np.float32) / np.float32(1 << wav.bits - 1)
    return samples.reshape(wav.frames, wav.channels)


def from_24_bits(octets: NDArray[Any]) -> NDArray[Any]:
    """Return float32 of integers of three bytes, the lowest first."""
    wide = np.zeros((len(octets) // 3, 4), np.uint8)
    wide[:, 1:] = octets.reshape(-1, 3)
    return wide.view("<i4")[:, 0].astype(np.float32) / np.float32(1 << 31)


def check_level(floats: NDArray[Any]) -> NDArray[Any]:
    """Return floats as float32; refuse NaN, infinity and integers stored as floats."""
    check_finite(floats, "samples")
    peak = float(np.abs(floats).max())
    if peak > LOUDEST:
        message = f"the samples reach {peak:g}; full scale is 1"
        hint = "divide them by full scale (32768 for 16 bits), or send integers"
        raise BadInput("wrong_input", message, hint)
    return floats.astype(np.float32)
