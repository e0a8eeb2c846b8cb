"""Removes bytes from a JPEG on which certainly no pixel depends.

libjpeg gives the same warning for two causes. Extra bytes before a marker may be a camera's padding. Or they may be the
rest of the picture: after a damaged byte the decoder reads wrong codes, and may finish too early. This module rewrites
the file without bytes that no pixel depends on. If it is not certain about some bytes, it gives up. Afterwards a strict
decoder checks the rewritten file.

The format is ITU-T T.81; comments name its sections.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator

import numpy as np

_SOI, _EOI, _SOS, _DHT, _DRI, _APP0, _APP1, _APP14 = 0xD8, 0xD9, 0xDA, 0xC4, 0xDD, 0xE0, 0xE1, 0xEE
_ALONE = {0x01, *range(0xD0, 0xD8)}  # TEM and misplaced restart markers: no segment follows them
_FRAMES = set(range(0xC0, 0xD0)) - {_DHT, 0xC8, 0xCC}
_SEQUENTIAL, _PROGRESSIVE = {0xC0, 0xC1}, 0xC2
_ARITHMETIC, _ARITHMETIC_PROGRESSIVE = 0xC9, 0xCA
_HUFFMAN = {*_SEQUENTIAL, _PROGRESSIVE}  # frames whose scans can be read here: all but those with arithmetic coding
_BESIDE_THE_PICTURE = {*range(0xE0, 0xF0), 0xFE} - {_APP0, _APP14}  # APP0 and APP14 decide the colour transform
_MARKER = re.compile(rb"\xff+([\x01-\xfe])")
_LIKE_A_MARKER = re.compile(rb"\xff[\xc0-\xfe]")
_AFTER_SCAN = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # restart markers are inside a scan
_LONG = 2**15  # bytes of a scan that is read in parts: shorter ones are read as fast in one go
_PART, _BEFORE = 1024, 128  # bytes
_PASSES = 8  # after which few parts are left, unless all blocks look the same, as in a drawing
_MOST_LEFT = 512  # most MCUs that damage is assumed to leave undecoded; trying all takes half its square of steps


class _Unsure(Exception):
    """The extra bytes may be a part of the picture."""


def exif_of(encoded: bytes) -> bytes | None:
    r"""The first block of EXIF data of a JPEG, from its mark `Exif` on; None if there is none before the picture.

    Example:
        >>> exif_of(b"\xff\xd8\xff\xe1\0\x0aExif\0\0II")
        b'Exif\x00\x00II'
    """
    for marker, body in _segments(encoded):
        if marker == _SOS:
            break
        if marker == _APP1 and body[:6] == b"Exif\0\0":
            return body
    return None


def lacks_scans(encoded: bytes) -> bool:
    """Whether the picture of a JPEG is cut short between two scans.

    A picture may be stored in several scans: of one colour each, or coarser and finer ones. libjpeg does not warn if
    only the last ones are missing and the end marker is there.

    Example:
        >>> import numpy as np, simplejpeg
        >>> lacks_scans(simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8)))
        False
    """
    marker, header, frame = 0, b"", None
    try:
        for each, body in _segments(encoded):
            if each in _FRAMES:
                marker, header = each, body
                if marker not in (*_HUFFMAN, _ARITHMETIC, _ARITHMETIC_PROGRESSIVE):
                    return False
            elif each == _SOS:
                refined = marker in (_PROGRESSIVE, _ARITHMETIC_PROGRESSIVE)
                if not refined and body[0] == header[5]:  # all colours in one scan, as in most files
                    return False
                frame = frame or _Frame.of(marker, header, keep_blocks=False)
                low, high, bit = (body[-3], min(body[-2], 63), body[-1] & 15) if refined else (0, 63, 0)
                for name in body[1 : 1 + 2 * body[0] : 2]:
                    frame.components[name].reads(low, high, bit)
    except (_Unsure, LookupError):  # a strange file, not one that is cut short: the decoder judges it
        return False
    return frame is not None and not frame.complete()


def _segments(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the marker and the body of each segment, up to the end marker."""
    position = 2
    while (found := _AFTER_SCAN.search(encoded, position)) is not None and found[1][0] != _EOI:
        position = found.end()
        if found[1][0] not in _ALONE:
            length = int.from_bytes(encoded[position : position + 2])
            yield found[1][0], encoded[position + 2 : position + length]
            position += length


def without_extras(encoded: bytes, read_scans: bool) -> bytes | None:
    """Rewrites a JPEG without the parts for which libjpeg warns although no pixel depends on them.

    It removes bytes between segments and after scans, application segments, and comments. It corrects an unknown
    version of JFIF, an unknown colour transform of Adobe's, and the parameters of a sequential scan, which can have
    only one value.

    Args:
        encoded: the file's bytes.
        read_scans: whether to follow every code of every scan, so that bytes after a scan's last code can be removed.
            This takes 0.1 seconds for a megabyte, but two seconds if the JPEG is progressive. Otherwise scans are
            copied unchanged.

    Returns:
        The bytes of the new file; or None if the extra bytes may be a part of the picture, or scans are missing.

    Example:
        >>> import numpy as np, simplejpeg
        >>> jpeg = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
        >>> without_extras(jpeg[:-2] + bytes(174) + jpeg[-2:], read_scans=True) == jpeg
        True
        >>> without_extras(jpeg[:-2], read_scans=True) is None  # cut short
        True
    """
    try:
        return _rewritten(encoded, read_scans)
    except (_Unsure, LookupError, TypeError):  # LookupError and TypeError: a segment is too short for its kind
        return None


def without_padding(encoded: bytes, is_clean: Callable[[bytes], bool]) -> bytes | None:
    """Like `without_extras` with `read_scans`, for a large progressive JPEG with one repeated byte before its end.

    Such a JPEG takes seconds to read in Python. Here the decoder says where the codes end.

    Args:
        encoded: the file's bytes.
        is_clean: whether the strict decoder decodes a JPEG.

    Returns:
        The bytes of the new file, which may be unclean; None if this does not tell where the codes end.

    Example:
        >>> import numpy as np, simplejpeg
        >>> without_padding(simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8)), bool) is None  # not large
        True
    """
    rest = without_extras(encoded, read_scans=False) if len(encoded) > _LONG else None
    if rest is None or not any(marker == _PROGRESSIVE for marker, _ in _segments(rest)):
        return None
    picture, end = rest[:-2], rest[-2:]
    padding = picture[-1:]
    codes = picture.rstrip(padding)
    if codes.endswith(b"\xff"):  # a zero belongs to it
        codes = picture[: len(codes) + 1]
    last = 2 if codes.endswith(b"\xff\0") else 1
    extra = picture[len(codes) :]
    # After the last code there are ones (F.1.2.3). If the last byte ends in a zero, only reading tells where it ends.
    if not extra or _may_be_a_segment(extra) or not codes[-last] & 1 or is_clean(codes[:-last] + end):
        return None
    return codes + end


def _rewritten(encoded: bytes, read_scans: bool) -> bytes:
    result = bytearray(b"\xff\xd8")
    frame, adobe, interval, position = None, None, 0, 2
    tables: dict[int, tuple[bytes, bytes]] = {}
    while (found := _MARKER.search(encoded, position)) is not None:
        if _may_be_a_segment(encoded[position : found.start()]):
            raise _Unsure
        marker, position = found[1][0], found.end()
        if marker == _EOI:
            if frame is None or not frame.complete():
                raise _Unsure
            return bytes(result + b"\xff\xd9")
        if marker in _ALONE:
            continue
        length = int.from_bytes(encoded[position : position + 2])
        body = bytearray(encoded[position + 2 : position + length])
        position += length
        if len(body) != length - 2 or marker == _SOI:
            raise _Unsure
        if marker in _BESIDE_THE_PICTURE:
            continue
        if marker not in (_APP0, _APP14) and _LIKE_A_MARKER.search(body):  # lost bytes: the next segment is in it
            raise _Unsure
        if marker == _APP0 and body[:5] == b"JFIF\0":
            body[5:7] = b"\x01\x01"
        elif marker == _APP14 and body[:5] == b"Adobe":
            adobe = len(result) + 15  # position of the colour transform in the result
        elif marker == _DRI:
            interval = int.from_bytes(body)
        elif marker == _DHT:
            tables |= _huffman_tables(body)
        elif marker in _FRAMES:
            frame = _Frame.of(marker, body, keep_blocks=read_scans and marker == _PROGRESSIVE)
            # libjpeg assumes these instead of an unknown transform.
            expected = {3: 1, 4: 2}.get(len(frame.components))
            if adobe is not None and expected and result[adobe] not in (0, expected):
                result[adobe] = expected
        elif marker == _SOS:
            if frame is None:
                raise _Unsure
            # Only zeros are corrected: if bytes are lost, other values may be bytes of the scan.
            if frame.marker in _SEQUENTIAL and not any(body[-3:]):
                body[-3:] = b"\x00\x3f\x00"
            scan = _Scan(frame, body, tables)
            result += b"\xff\xda" + length.to_bytes(2) + body
            if read_scans:
                kept, position = _read(scan, encoded, position, interval)
                result += kept
            else:
                after = _AFTER_SCAN.search(encoded, position)
                if after is None:
                    raise _Unsure
                result += encoded[position : after.start()]
                position = after.start()
            continue
        result += bytes((0xFF, marker)) + length.to_bytes(2) + body
    raise _Unsure


def _huffman_tables(body: bytearray) -> dict[int, tuple[bytes, bytes]]:
    """Huffman tables by class and number: the counts of codes of each length, and their symbols (B.2.4.2)."""
    tables, at = {}, 0
    while at < len(body):
        counts = bytes(body[at + 1 : at + 17])
        end = at + 17 + sum(counts)
        symbols = bytes(body[at + 17 : end])
        if len(set(symbols)) != sum(counts):  # damaged: two codes have the same symbol
            raise _Unsure
        tables[body[at]] = counts, symbols
        at = end
    return tables


@functools.lru_cache(maxsize=16)  # most files have the standard's example tables
def _codes_of(counts: bytes, symbols: bytes) -> list[tuple[int, int] | None]:
    """For each number of 16 bits, the length and the symbol of the code with which it begins (annex C)."""
    table: list[tuple[int, int] | None] = [None] * 65536
    first, at = 0, 0
    for length, count in enumerate(counts, start=1):
        some = 1 << (16 - length)
        for symbol in symbols[at : at + count]:
            table[first : first + some] = [(length, symbol)] * some
            first += some
        at += count
    return table


def _may_be_a_segment(extra: bytes) -> bool:
    """Whether bytes between segments may be a segment that lost its marker, because they hold a segment's length."""
    length = int.from_bytes(extra[2:4])
    scan = len(extra) > 4 and 1 <= extra[4] <= 4 and length == 6 + 2 * extra[4]
    return len(extra) >= 4 and (length == len(extra) - 2 or scan)


@dataclasses.dataclass
class _Component:
    """The blocks of 8x8 coefficients of one colour."""

    across: int  # blocks in an MCU
    down: int
    wide: int  # blocks in a row of the picture, without those that only fill up an MCU
    high: int
    stride: int  # blocks in a row, including those that fill up the last MCU
    nonzero: bytearray  # 64 for each block: whether the coefficient as read so far is not 0
    missing: bytearray  # 64: number of low bits of the coefficient that are not yet read

    def reads(self, low: int, high: int, bit: int) -> None:
        """A scan has the coefficients from `low` to `high`, down to this bit."""
        self.missing[low : high + 1] = bytes((bit,)) * (high + 1 - low)


@dataclasses.dataclass
class _Frame:
    marker: int
    components: dict[int, _Component]
    mcus: int
    mcus_across: int

    @classmethod
    def of(cls, marker: int, body: bytes | bytearray, keep_blocks: bool) -> "_Frame":
        height, width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
        factors = {body[at]: (body[at + 1] >> 4, body[at + 1] & 15) for at in range(6, 6 + 3 * body[5], 3)}
        if not factors or not height or not width or not all(all(pair) for pair in factors.values()):
            raise _Unsure
        most_across, most_down = (max(pair[axis] for pair in factors.values()) for axis in (0, 1))
        mcus_across, mcus_down = -(-width // (8 * most_across)), -(-height // (8 * most_down))
        components = {}
        for name, (across, down) in factors.items():
            blocks = mcus_across * across * mcus_down * down
            components[name] = _Component(
                across,
                down,
                wide=-(-width * across // (8 * most_across)),
                high=-(-height * down // (8 * most_down)),
                stride=mcus_across * across,
                nonzero=bytearray(64 * blocks if keep_blocks else 0),
                missing=bytearray(b"\xff" * 64),
            )
        return cls(marker, components, mcus_across * mcus_down, mcus_across)

    def complete(self) -> bool:
        """Whether the scans held every bit of every coefficient."""
        return not any(any(component.missing) for component in self.components.values())


class _Scan:
    """One scan: finds where each of its blocks ends in the bits (T.81, F.2.2 and G.2).

    `block` follows a block's codes from the position of its first bit, and returns the position after its last bit. It
    does not compute coefficients.
    """

    def __init__(self, frame: _Frame, body: bytearray, tables: dict[int, tuple[bytes, bytes]]):
        names = [(body[at], body[at + 1]) for at in range(1, 1 + 2 * body[0], 2)]
        self.low, self.high = body[-3], min(body[-2], 63)
        self.refines = body[-1] >> 4 > 0
        self.progressive = frame.marker == _PROGRESSIVE
        self.components = [frame.components[name] for name, _ in names]
        self.huffman = frame.marker in _HUFFMAN
        self.tables = [(tables.get(pair >> 4), tables.get(16 + (pair & 15))) for _, pair in names]
        needs_dc, needs_ac = self.low == 0 and not self.refines, self.high > 0
        if self.huffman and any((needs_dc and not dc) or (needs_ac and not ac) for dc, ac in self.tables):
            raise _Unsure  # libjpeg would use default tables
        self.codes: list[tuple] = []  # the codes of `tables`; set by `_read`
        self.run = 0  # number of following blocks that the last end-of-band code ends
        for component in self.components:
            component.reads(self.low, self.high, body[-1] & 15)
        if len(names) == 1:
            self.mcus = self.components[0].wide * self.components[0].high
        else:
            self.mcus, self.mcus_across = frame.mcus, frame.mcus_across

    def mcu(self, number: int, at: int, bits: "_Bits") -> int:
        """The position after the last bit of an MCU whose first bit is at `at`."""
        if len(self.components) == 1:
            component = self.components[0]
            row, column = divmod(number, component.wide)
            return self.block(0, row * component.stride + column, at, bits)
        row, column = divmod(number, self.mcus_across)
        for index, component in enumerate(self.components):
            for y in range(row * component.down, (row + 1) * component.down):
                for x in range(column * component.across, (column + 1) * component.across):
                    at = self.block(index, y * component.stride + x, at, bits)
        return at

    def block(self, index: int, block: int, at: int, bits: "_Bits") -> int:
        dc, ac = self.codes[index]
        k = self.low
        if k == 0:
            if self.refines:
                return at + 1
            length, size = dc[bits.peek(at)]
            at += length + size
            if self.progressive:
                return at
            k = 1
        nonzero = self.components[index].nonzero
        first = 64 * block
        if self.run == 0:
            while k <= self.high:
                length, symbol = ac[bits.peek(at)]
                zeros, size = symbol >> 4, symbol & 15
                at += length
                if size == 0 and zeros < 15:
                    if self.progressive:
                        self.run = (1 << zeros) + (bits.peek(at) >> (16 - zeros))
                        at += zeros
                    break
                if self.refines:
                    if size > 1:
                        raise _Unsure
                    while k <= self.high:  # skips `zeros` zeros, and a bit for each nonzero coefficient between them
                        if nonzero[first + k]:
                            at += 1
                        elif zeros == 0:
                            break
                        else:
                            zeros -= 1
                        k += 1
                else:
                    k += zeros
                at += size
                if k > self.high:
                    raise _Unsure  # libjpeg ignores this, but no encoder writes it
                if size and self.progressive:
                    nonzero[first + k] = 1
                k += 1
        if self.run:
            self.run -= 1
            if self.refines:
                at += sum(nonzero[first + k : first + self.high + 1])
        return at

    def end(self, first: int, last: int, bits: "_Bits") -> int:
        """The position after the last bit of the MCUs from `first` to before `last`, of which the first begins at 0."""
        if bits.end > 8 * _LONG and not self.progressive and (self.low, self.high) == (0, 63):
            return _end_in_parts(self, last - first, bits)
        at = 0
        for mcu in range(first, last):
            at = self.mcu(mcu, at, bits)
        return at

    def order(self) -> list[int]:
        """For each block of an MCU, the index of its component."""
        if len(self.components) == 1:
            return [0]
        return [index for index, each in enumerate(self.components) for _ in range(each.across * each.down)]


def _read(scan: _Scan, encoded: bytes, position: int, interval: int) -> tuple[bytes, int]:
    """A scan's bytes without those after its last code, and the position of the marker after it."""
    if not scan.huffman:
        raise _Unsure
    scan.codes = [tuple(each and _codes_of(*each) for each in pair) for pair in scan.tables]
    before = [bytes(component.nonzero) for component in scan.components]
    interval = interval or scan.mcus
    kept = bytearray()
    for number, first in enumerate(range(0, scan.mcus, interval)):
        if number:
            kept += bytes((0xFF, 0xD0 + (number - 1) % 8))
        found = _MARKER.search(encoded, position)
        last = first + interval >= scan.mcus
        if found is None or (not last and found[1][0] != 0xD0 + number % 8):
            raise _Unsure
        if not last and not scan.progressive:  # the decoder warns of each byte too many before a restart marker
            kept += encoded[position : found.start()]
            position = found.end()
            continue
        bits = _Bits(encoded[position : found.start()])
        scan.run = 0
        at = scan.end(first, min(first + interval, scan.mcus), bits)
        codes, extra = bits.split(at)
        # No encoder puts extra bytes before a restart marker.
        if extra and (not last or scan.run or not bits.is_end(at) or _may_be_picture(scan, before, bits, at)):
            raise _Unsure
        kept += codes
        position = found.start() if last else found.end()
    return bytes(kept), position


def _end_in_parts(scan: _Scan, mcus: int, bits: "_Bits") -> int:
    """`_Scan.end` of a long sequential scan: all parts of it are read at the same time, as arrays.

    It is not known where a part's first block begins. But a decoder that begins at any bit soon reads the right codes,
    so each part is read from some bytes before it on. If the part before it turns out to end elsewhere, it is read
    again (Klein and Wiseman, "Parallel Huffman decoding with applications to JPEG files", 2003).
    """
    reader = _Reader(scan, bits)
    limits = np.append(np.arange(8 * _PART, bits.end, 8 * _PART), bits.end)
    first = np.append(0, limits[:-1])
    states = reader.read(np.maximum(first - 8 * _BEFORE, 0) * reader.blocks, first)[0]
    ends, counts, wrong = reader.read(states, limits)
    for _ in range(_PASSES):
        others = np.flatnonzero(states[1:] != ends[:-1]) + 1
        if len(others) <= max(len(limits) // 50, 4):
            break
        states[others] = ends[others - 1]
        ends[others], counts[others], wrong[others] = reader.read(states[others], limits[others])
    # The few parts that still begin elsewhere are read one after the other, and so is the one in which the scan ends.
    state, left = 0, mcus * reader.blocks
    parts = (each.tolist() for each in (limits, states, ends, counts, wrong))
    for limit, known, end, count, fails in zip(*parts, strict=True):
        if state == known and count < left:
            if fails:
                raise _Unsure
            state, left = end, left - count
        while state < limit * reader.blocks and left:
            at, block = divmod(state, reader.blocks)
            state = scan.block(reader.order[block], 0, at, bits) * reader.blocks + (block + 1) % reader.blocks
            left -= 1
    if left:
        raise _Unsure
    return state // reader.blocks


class _Reader:
    """Follows the codes of a sequential scan from several positions at the same time.

    A state is the position of a bit and the number of a block in an MCU, as one number: position × blocks + block.
    """

    _ENDS, _NO_CODE = 1 << 10, 1 << 12  # more than all coefficients

    def __init__(self, scan: _Scan, bits: "_Bits"):
        self.order = scan.order()
        self.blocks = len(self.order)
        data = np.frombuffer(bits.padded, np.uint8).astype(np.int32)
        self._windows = data[:-2] << 16 | data[1:-1] << 8 | data[2:]  # 24 bits from each byte on
        # For the DC and the AC code of each block, and each 16 bits that begin with the code: by how many bits the
        # position advances, and 65536 times by how many coefficients.
        steps = [self._steps(table, ac) for index in self.order for ac, table in enumerate(scan.tables[index])]
        self._table = np.concatenate(steps)

    @classmethod
    def _steps(cls, table: tuple[bytes, bytes] | None, ac: int) -> np.ndarray:
        assert table is not None  # a sequential scan has both
        lengths, symbols = np.zeros(65536, np.int64), np.zeros(65536, np.int64)
        first, at = 0, 0
        for length, count in enumerate(table[0], start=1):
            some = 1 << (16 - length)
            symbols[first : first + count * some] = np.repeat(np.frombuffer(table[1], np.uint8)[at : at + count], some)
            lengths[first : first + count * some] = length
            first, at = first + count * some, at + count
        zeros, size = (symbols >> 4, symbols & 15) if ac else (0, symbols)
        coefficients = np.where((size == 0) & (zeros < 15), cls._ENDS, zeros + 1) if ac else np.int64(1)
        return np.where(lengths > 0, lengths + size + (coefficients << 16), 1 + (cls._NO_CODE << 16))

    def read(self, states: np.ndarray, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reads from each state to the end of the first block that ends at its limit or later.

        Returns:
            The states there, the numbers of blocks that were read, and whether there were wrong codes.
        """
        ends, counts, wrong = states.copy(), np.zeros_like(states), np.zeros(len(states), bool)
        numbers = np.flatnonzero(states < limits * self.blocks)
        at, block = np.divmod(states[numbers], self.blocks)
        limit, count, coefficient = limits[numbers], np.zeros_like(at), np.zeros_like(at)
        fails, running = np.zeros(len(at), bool), np.ones(len(at), bool)
        while len(at):
            for _ in range(32):
                window = np.take(self._windows, at >> 3, mode="clip") >> (8 - (at & 7)) & 0xFFFF
                step = np.take(self._table, ((2 * block + (coefficient > 0)) << 16) + window)
                at += step & 0xFFFF
                coefficient += step >> 16
                done = coefficient >= 64
                fails |= done & (coefficient != 64) & (coefficient & self._ENDS == 0)
                coefficient *= ~done
                count += done
                block += done
                block *= block != self.blocks
                if len(over := np.flatnonzero(done & running & (at >= limit))):
                    ends[numbers[over]] = at[over] * self.blocks + block[over]
                    counts[numbers[over]], wrong[numbers[over]] = count[over], fails[over]
                    running[over] = False
            at, block, coefficient, count = at[running], block[running], coefficient[running], count[running]
            limit, numbers, fails, running = limit[running], numbers[running], fails[running], running[running]
        return ends, counts, wrong


class _Bits:
    """The entropy-coded bytes between two markers."""

    def __init__(self, stored: bytes):
        self._stored = stored
        if b"\xff\xff" in stored:
            stored = re.sub(rb"\xff+\x00", b"\xff\0", stored)
        data = stored.replace(b"\xff\0", b"\xff")
        self.padded = data + bytes(8)
        self.end = 8 * len(data)

    def peek(self, at: int) -> int:
        """The 16 bits that begin at `at`."""
        if at > self.end:
            raise _Unsure
        byte = at >> 3
        return (int.from_bytes(self.padded[byte : byte + 3]) >> (8 - (at & 7))) & 0xFFFF

    def is_end(self, at: int) -> bool:
        """Whether the rest of the byte from `at` on is ones, as after the last code (F.1.2.3)."""
        ones = (1 << (-at % 8)) - 1
        return self.padded[at >> 3] & ones == ones

    def split(self, at: int) -> tuple[bytes, bytes]:
        """The stored bytes up to the one that holds the bit before `at`, and the bytes after it."""
        if at > self.end:
            raise _Unsure
        codes = self.padded[: -(-at // 8)].replace(b"\xff", b"\xff\x00")
        return codes, self._stored[len(codes) :]


def _may_be_picture(scan: _Scan, before: list[bytes], bits: _Bits, at: int) -> bool:
    """Whether the bytes after the code that ends at bit `at` may belong to the scan.

    After damage a decoder soon reads correct codes again, but takes them for those of other blocks. If it finishes too
    early, the bytes that are left are codes of blocks, and the last block ends where the bytes end.
    """
    codes, extra = bits.split(at)
    if _may_be_a_segment(extra):
        return True
    if scan.refines and scan.high == 0:
        return False  # each block has one bit, so damage cannot shift the decoder
    if len(set(extra)) == 1:  # padding; if the codes end in the same bytes, it may replace lost bytes
        return codes.endswith(2 * extra[:1])
    # The codes of a refinement depend on the block, so try each of the last MCUs as the first one that is left.
    firsts = range(max(0, scan.mcus - _MOST_LEFT), scan.mcus) if scan.refines else [0]
    after = [bytes(component.nonzero) for component in scan.components]
    try:
        return any(_ends_in_step(scan, before, bits, at, first) for first in firsts)
    finally:
        _put_back(scan, after)


def _ends_in_step(scan: _Scan, before: list[bytes], bits: _Bits, at: int, first: int) -> bool:
    """Whether the bits from `at` to the last bit are MCUs of the scan, beginning with MCU `first`."""
    _put_back(scan, before)
    scan.run = 0
    try:
        number = first
        while number < scan.mcus if scan.refines else bits.end - at >= 8:
            at = scan.mcu(number, at, bits)
            number += scan.refines
    except (_Unsure, TypeError):
        return False
    return 0 <= bits.end - at < 8 and bits.is_end(at) and scan.run == 0


def _put_back(scan: _Scan, nonzero: list[bytes]) -> None:
    for component, theirs in zip(scan.components, nonzero, strict=True):
        component.nonzero[:] = theirs
