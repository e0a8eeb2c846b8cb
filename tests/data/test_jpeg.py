"""JPEGs of which libjpeg warns: whole ones are decoded, damaged ones are refused."""

import contextlib
import io
import re

import numpy as np
import pytest
import simplejpeg
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from flax_resnets.data.decode import decode
from flax_resnets.data.jpeg import _Scan, lacks_scans, without_extras

EOI = b"\xff\xd9"
SCAN = b"\xff\xda"


def picture() -> Image.Image:
    """A picture with smooth colours, as in a photograph."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    return Image.fromarray(noise).resize((104, 72), Image.Resampling.BICUBIC)


def jpeg(mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    picture().convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


KINDS = {
    "4:2:0": jpeg(),
    "4:4:4, own tables": jpeg(subsampling=0, quality=92, optimize=True),
    "grey": jpeg("L"),
    "progressive": jpeg(progressive=True),
    "progressive, grey": jpeg("L", progressive=True),
    "progressive, odd blocks": jpeg(progressive=True, subsampling="4:2:2", quality=95),
    "restart markers": jpeg(restart_marker_blocks=5),
    "progressive, restart markers": jpeg(progressive=True, restart_marker_rows=1),
    "with EXIF": jpeg(exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
}
kinds = pytest.mark.parametrize("whole", KINDS.values(), ids=KINDS)
# Extra bytes between a picture and the end marker. None of them begins a marker.
EXTRA = st.one_of(
    st.binary(min_size=1, max_size=300).map(lambda some: some.replace(b"\xff", b"\xfe")),
    st.integers(1, 5000).map(bytes),
    st.integers(1, 300).map(lambda count: b"\xff" * count),
    st.just(b"maker's note " * 20),
    st.just(b"\xff\x00" * 40),
)


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2) + body


def is_clean(encoded: bytes) -> bool:
    try:
        simplejpeg.decode_jpeg(encoded, strict=True)
    except ValueError:
        return False
    return True


def same_picture(encoded: bytes, whole: bytes) -> None:
    for channels in (1, 3):
        np.testing.assert_array_equal(decode(encoded, channels), decode(whole, channels))


@kinds
def test_a_clean_one_is_written_again_to_the_byte_but_for_its_application_segments(whole):
    rest = without_extras(whole, read_scans=True)
    assert rest is not None
    assert rest == re.sub(rb"\xff\xe1.*?(?=\xff\xdb)", b"", whole, flags=re.DOTALL)
    assert is_clean(rest)


@kinds
@pytest.mark.parametrize("count", [1, 2, 174])
def test_zeros_before_the_end_mark(whole, count):
    same_picture(whole[:-2] + bytes(count) + EOI, whole)


@pytest.mark.parametrize("side", range(8, 200, 8))
def test_zeros_after_a_flat_picture_whose_codes_end_in_zeros_as_well(side):
    buffer = io.BytesIO()
    Image.new("RGB", (side, 40), "white").save(buffer, "JPEG")
    whole = buffer.getvalue()
    same_picture(whole[:-2] + bytes(174) + EOI, whole)


@given(st.sampled_from(list(KINDS.values())), EXTRA)
def test_whatever_stands_before_the_end_mark(whole, extra):
    encoded = whole[:-2] + extra + EOI
    try:
        pixels = decode(encoded, 3)
    except ValueError:
        # One in hundreds looks like the end of a picture's codes and is refused. Padding with one byte never is.
        assert len(set(extra)) > 1
        return
    np.testing.assert_array_equal(pixels, decode(whole, 3))


@given(st.sampled_from(list(KINDS.values())), st.binary(max_size=300))
def test_whatever_stands_after_it(whole, extra):
    same_picture(whole + extra, whole)


@kinds
@pytest.mark.parametrize("extra", [b"\0", b"\0\0\0", bytes(174), b"\xfe" * 9])
def test_bytes_between_segments(whole, extra):
    for found in re.finditer(rb"\xff[\xc0\xc2\xc4\xda-\xdd]", whole[: whole.index(SCAN) + 2]):
        same_picture(whole[: found.start()] + extra + whole[found.start() :], whole)


def test_bytes_between_the_scans_of_a_progressive_one():
    whole = KINDS["progressive"]
    for found in re.finditer(rb"\xff[\xc4\xda]", whole):
        same_picture(whole[: found.start()] + bytes(174) + whole[found.start() :], whole)


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes((transform,)))


WHOLE = KINDS["4:2:0"]
PARAMETERS = WHOLE.index(SCAN) + 11
BESIDE = {
    "a version of JFIF that there is not": WHOLE.replace(b"JFIF\0\1\1", b"JFIF\0\0\0"),
    "another": WHOLE.replace(b"JFIF\0\1\1", b"JFIF\0\7\1"),
    "a colour transform that there is not": WHOLE[:2] + adobe(9) + WHOLE[20:],
    "no scan parameters": WHOLE[:PARAMETERS] + bytes(3) + WHOLE[PARAMETERS + 3 :],
    "a part of a colour profile": WHOLE[:20] + segment(0xE2, b"ICC_PROFILE\0\5\1abc") + WHOLE[20:],
    "a thumbnail that is none": WHOLE[:18] + b"\x09\x09" + WHOLE[20:],
    "unknown application segments": WHOLE[:20] + b"".join(segment(0xE0 + n, b"?") for n in range(16)) + WHOLE[20:],
    "EXIF that is longer than it says": WHOLE[:20] + segment(0xE1, b"Exif\0\0II*") + b"and more" + WHOLE[20:],
    "all at once": WHOLE[:2]
    + b"??"
    + adobe(9)
    + WHOLE[20:PARAMETERS]
    + bytes(3)
    + WHOLE[PARAMETERS + 3 : -2]
    + b"?\xff\xd9?",
}


@pytest.mark.parametrize("encoded", BESIDE.values(), ids=BESIDE)
def test_what_is_beside_the_picture(encoded):
    same_picture(encoded, WHOLE)


@pytest.mark.parametrize("encoded", BESIDE.values(), ids=BESIDE)
@pytest.mark.parametrize("close", [b"", EOI, bytes(174) + EOI, b"?" * 174 + EOI])
def test_behind_a_harmless_warning_a_picture_cut_short_is_seen(encoded, close):
    half = encoded[: len(encoded) * 3 // 4] + close
    with pytest.raises(ValueError, match=r"."):
        decode(half, 3)


@given(st.sampled_from(list(KINDS.values())), st.data())
def test_one_cut_short_is_refused_however_it_is_closed(whole, data):
    cut = data.draw(st.integers(2, len(whole) - 3))
    with pytest.raises(ValueError, match=r"."):
        decode(whole[:cut], 3)
    for close in (EOI, bytes(len(whole) - cut - 2) + EOI, bytes(5000) + EOI):
        encoded = whole[:cut] + close
        # A few zeros may be the codes of the last blocks.
        assume(close == EOI or not is_clean(encoded) or lacks_scans(encoded))
        with pytest.raises(ValueError, match=r"."):
            decode(encoded, 3)


@pytest.mark.parametrize("name", ["progressive", "progressive, grey", "progressive, odd blocks"])
def test_one_cut_between_two_scans_is_refused(name):
    whole = KINDS[name]
    cuts = [found.start() for found in re.finditer(rb"\xff[\xc4\xda]", whole)]
    assert len(cuts) > 8
    for cut in cuts:
        for close in (b"", EOI, bytes(9) + EOI):
            with pytest.raises(ValueError, match=r"."):
                decode(whole[:cut] + close, 3)


def test_one_with_a_scan_for_each_colour():
    grey, components = KINDS["grey"], 3
    tables = grey[2 : grey.index(b"\xff\xc0")]
    frame = segment(0xC0, b"\x08\0\x48\0\x68\3" + b"\1\x11\0" + b"\2\x11\0" + b"\3\x11\0")
    codes = grey[grey.index(b"\xff\xc4") :]
    before, scan = codes[: codes.index(SCAN)], codes[codes.index(SCAN) + 10 : -2]
    scans = [segment(0xDA, bytes((1, number, 0, 0, 63, 0))) + scan for number in range(1, components + 1)]
    head = b"\xff\xd8" + tables + frame + before
    assert decode(head + b"".join(scans) + EOI, 3).shape == (72, 104, 3)
    for count in range(components):
        with pytest.raises(ValueError, match=r"."):
            decode(head + b"".join(scans[:count]) + EOI, 3)


def test_one_of_a_subsampling_that_turbojpeg_does_not_read():
    """Its luminance is three times as wide as its colours; each has a scan of its own."""
    wide, narrow = (picture().convert("L").resize((width, 48)) for width in (96, 32))
    parts = []
    for image in (wide, narrow):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG")
        parts.append(buffer.getvalue())
    grey = parts[0]
    frame, tables = grey.index(b"\xff\xc0"), grey.index(b"\xff\xc4")
    sampling = b"\x08\0\x30\0\x60\3" + b"\1\x31\0" + b"\2\x11\0" + b"\3\x11\0"
    codes = [part[part.index(SCAN) + 10 : -2] for part in (parts[0], parts[1], parts[1])]
    scans = [segment(0xDA, bytes((1, number, 0, 0, 63, 0))) + scan for number, scan in enumerate(codes, start=1)]
    head = grey[:frame] + segment(0xC0, sampling) + grey[tables : grey.index(SCAN)]
    whole = head + b"".join(scans) + EOI
    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg(whole, strict=True)
    np.testing.assert_array_equal(decode(whole, 3), np.asarray(Image.open(io.BytesIO(whole)).convert("RGB")))
    for cut in range(len(head), len(whole) - 2, 50):
        for close in (b"", EOI):
            with pytest.raises(ValueError, match=r"."):
                decode(whole[:cut] + close, 3)


def test_a_cmyk_one_closed_in_mid_picture_is_refused():
    whole = jpeg("CMYK")
    assert decode(whole, 3).shape == (72, 104, 3)
    with pytest.raises(ValueError, match="premature end"):
        decode(whole[: len(whole) * 3 // 4] + EOI, 3)


@kinds
def test_damage_that_lets_a_decoder_finish_early_is_not_taken_for_extra_bytes(whole):
    """libjpeg gives the same warning for damage and for extra bytes. Nearly all of this damage must be found."""
    rng = np.random.default_rng(0)
    told, seen = 0, 0
    for position in rng.integers(whole.index(SCAN) + 14, len(whole) - 2, 150):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        try:
            simplejpeg.decode_jpeg(bytes(damaged), strict=True)
        except ValueError as error:
            if "extraneous bytes" not in str(error):
                continue
        else:
            continue
        seen += 1
        try:
            decode(bytes(damaged), 3)
        except ValueError:
            told += 1
    assert seen
    assert told >= 0.9 * seen


@kinds
@pytest.mark.parametrize("marker", [0xDB, 0xC4, 0xDA])
def test_a_segment_that_lost_its_marker_is_not_taken_for_extra_bytes(whole, marker):
    for found in re.finditer(bytes((0xFF, marker)), whole):
        damaged = bytearray(whole)
        damaged[found.start()] = 0
        with pytest.raises(ValueError, match=r"."):
            decode(bytes(damaged), 3)


@kinds
def test_damaged_tables_are_not_taken_for_extra_bytes(whole):
    """With a wrong code table the decoder finishes early, and most of the bytes are left."""
    for position in range(whole.index(b"\xff\xc4") + 4, whole.index(SCAN) - 4):
        damaged = whole[:position] + bytes(4) + whole[position + 4 :]
        if not is_clean(damaged):
            with contextlib.suppress(ValueError):
                same_picture(damaged, whole)


@kinds
def test_a_scan_that_is_read_in_parts_gives_the_same_as_one_that_is_read_in_one_go(whole, monkeypatch):
    rng = np.random.default_rng(0)
    originals = [whole[:-2] + extra + EOI for extra in (b"", bytes(174), b"?" * 9, rng.bytes(174))]
    contents = originals.copy()
    for position in rng.integers(whole.index(SCAN) + 14, len(whole) - 2, 5):
        damaged = bytearray(originals[rng.integers(4)])
        damaged[position] ^= 1 << rng.integers(8)
        contents += [bytes(damaged), whole[:position] + EOI, whole[:position] + bytes(len(whole)) + EOI]
    in_one_go = [without_extras(content, read_scans=True) for content in contents]
    assert 0 < sum(rest is None for rest in in_one_go) < len(contents)
    for part, before in ((16, 8), (300, 3)):
        for name, value in (("_LONG", 0), ("_PART", part), ("_BEFORE", before)):
            monkeypatch.setattr(f"flax_resnets.data.jpeg.{name}", value)
        assert [without_extras(content, read_scans=True) for content in contents] == in_one_go


def large(**options) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    image = Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC)
    image.paste("white", (0, 200, 640, 300))  # where one place looks like the other
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"progressive": True}, {"restart_marker_rows": 4}], ids=str
)
def test_a_large_one_with_extra_bytes_is_not_read_code_by_code(options, monkeypatch):
    whole = large(**options)
    read = []
    block = _Scan.block
    monkeypatch.setattr(_Scan, "block", lambda scan, *rest: read.append(1) or block(scan, *rest))
    same_picture(whole[:-2] + bytes(174) + EOI, whole)
    if "progressive" not in options:
        same_picture(whole[:-2] + np.random.default_rng(1).bytes(200).replace(b"\xff", b"") + EOI, whole)
    assert len(read) < 2400  # of 7200 to 14400 blocks, twice or four times


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=str)
def test_a_large_one_cut_short_is_refused(options):
    whole = large(**options)
    for cut in (len(whole) // 2, len(whole) * 9 // 10, len(whole) - 300, len(whole) - 9):
        for close in (b"", EOI, bytes(174) + EOI, bytes(5000) + EOI, b"?" * 174 + EOI):
            with pytest.raises(ValueError, match=r"."):
                decode(whole[:cut] + close, 3)


@kinds
def test_a_lost_restart_marker_is_refused(whole):
    if markers := re.findall(rb"\xff[\xd0-\xd7]", whole):
        with pytest.raises(ValueError, match=r"."):
            decode(whole.replace(markers[1], b"", 1), 3)


@kinds
def test_a_size_of_zero_is_left_to_the_decoder(whole):
    frame = re.search(rb"\xff[\xc0-\xc2\xc9\xca]..\x08", whole, re.DOTALL)
    assert frame is not None
    for at in (frame.end(), frame.end() + 2):  # height, width
        damaged = whole[:at] + b"\0\0" + whole[at + 2 :]
        assert without_extras(damaged, True) is None
        with pytest.raises(ValueError, match=r"."):
            decode(damaged, 3)


@given(st.sampled_from(list(KINDS.values())), st.data())
def test_any_bytes_are_rewritten_or_not_and_raise_nothing(whole, data):
    damaged = bytearray(whole)
    for position, patch in data.draw(
        st.lists(st.tuples(st.integers(0, 900), st.binary(min_size=1, max_size=4)), max_size=6)
    ):
        damaged[position : position + len(patch)] = patch
    for read_scans in (False, True):
        rest = without_extras(bytes(damaged), read_scans)
        assert rest is None or rest.startswith(b"\xff\xd8")
