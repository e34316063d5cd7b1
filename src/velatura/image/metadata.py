"""EXIF, XMP and ICC: carried over, with the orientation reset and the thumbnails dropped.

A thumbnail would still show what was painted over, and an orientation that has been applied must not be applied
again. Everything else is kept byte for byte where that is possible: EXIF is edited in place, since the makers'
private notes hold offsets that a rewrite would break.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape

__all__ = [
    "Directory",
    "Entry",
    "clean_exif",
    "clean_xmp",
    "describing",
    "exif_from_directory",
    "icc_space",
    "pack_directory",
    "read_directory",
    "read_exif",
    "read_orientation",
    "resize_exif",
    "state_origin",
]

EXIF_PREFIX = b"Exif\0\0"
ORIENTATION = 274
EXIF_POINTER, GPS_POINTER, INTEROP_POINTER = 34665, 34853, 40965

# Size in bytes of one value of each TIFF field type (TIFF 6.0 section 2; 13, 16-18 from BigTIFF).
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
SHORT, LONG, UNDEFINED, LONG8 = 3, 4, 7, 16

# What IFD0 says about the scene and the camera rather than about how the pixels are laid out. 0x9C9B-0x9C9F are
# the XP* strings of Windows, 18246 is its rating.
_DESCRIPTIVE_TAGS = frozenset({270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 33432, *range(0x9C9B, 0x9CA0)})

# Tags of IFD0 that may hold previews or a second copy of other metadata: SubIFDs, XMP, Photoshop resources.
_PREVIEW_TAGS = frozenset({330, 700, 34377})


# --- directories of tags, as TIFF and EXIF know them -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One tag: its field type, the number of values, and the values in the byte order of the stream."""

    type: int
    count: int
    value: bytes


@dataclass(slots=True)
class Directory:
    """Tags by number, and the directories below (EXIF, GPS, interoperability)."""

    order: str
    entries: dict[int, Entry] = field(default_factory=dict)
    children: dict[int, Directory] = field(default_factory=dict)

    def add(self, tag: int, kind: int, *values: int) -> None:
        """Add integers as SHORT, LONG or LONG8."""
        code = {SHORT: "H", LONG: "I", LONG8: "Q"}[kind]
        self.entries[tag] = Entry(kind, len(values), struct.pack(f"{self.order}{len(values)}{code}", *values))


def read_directory(
    read_at: Callable[[int, int], bytes],
    offset: int,
    order: str,
    *,
    big: bool = False,
    pointers: tuple[int, ...] = (EXIF_POINTER, GPS_POINTER),
    limit: int = 1 << 24,
) -> Directory:
    """Read one directory and the ones below it; tags that cannot be read are left out.

    Parameters
    ----------
    read_at : callable
        ``read_at(offset, size)`` returns at most `size` bytes.
    offset : int
        Where the directory begins.
    order : {"<", ">"}
        Byte order.
    big : bool
        Whether it is a BigTIFF directory.
    pointers : tuple of int
        Tags that lead to directories below. Each level looks for fewer of them, so a loop cannot be followed.
    limit : int
        Values longer than this many bytes are left out.
    """
    head, slot, word = (8, 20, "Q") if big else (2, 12, "I")
    inline = struct.calcsize(word)
    directory = Directory(order)
    header = read_at(offset, head)
    if len(header) < head:
        return directory
    (count,) = struct.unpack(order + ("Q" if big else "H"), header)
    table = read_at(offset + head, min(count, 0xFFFF) * slot)
    for start in range(0, len(table) - slot + 1, slot):
        tag, kind, number = struct.unpack_from(f"{order}HH{word}", table, start)
        size = _TYPE_SIZES.get(kind, 0) * number
        if not 0 < size <= limit:
            continue
        value = table[start + slot - inline : start + slot]
        if size > inline:
            value = read_at(struct.unpack(order + word, value)[0], size)
        if len(value) < size:
            continue
        directory.entries[tag] = Entry(kind, number, value[:size])
    for tag in pointers:
        entry = directory.entries.pop(tag, None)
        if entry is not None and entry.type in (LONG, 13, LONG8, 18):
            (below,) = struct.unpack_from(order + ("I" if _TYPE_SIZES[entry.type] == 4 else "Q"), entry.value)
            deeper = (INTEROP_POINTER,) if tag == EXIF_POINTER else ()
            child = read_directory(read_at, below, order, big=big, pointers=deeper, limit=limit)
            if child.entries:
                directory.children[tag] = child
    return directory


def pack_directory(directory: Directory, base: int, *, big: bool = False) -> bytes:
    """Serialise a directory that will lie at byte `base` (even) of its file, with what it points to behind it."""
    order, (head, slot, word) = directory.order, ((8, 20, "Q") if big else (2, 12, "I"))
    inline = struct.calcsize(word)
    tags = sorted({*directory.entries, *directory.children})
    behind = base + head + slot * len(tags) + inline
    behind += behind % 2
    table, tail = bytearray(), bytearray()
    for tag in tags:
        if tag in directory.children:
            offset = behind + len(tail)
            tail += pack_directory(directory.children[tag], offset, big=big)
            entry = Entry(LONG8 if big else LONG, 1, struct.pack(order + word, offset))
        else:
            entry = directory.entries[tag]
        value = entry.value
        if len(value) > inline:
            value = struct.pack(order + word, behind + len(tail))
            tail += entry.value
        tail += bytes(len(tail) % 2)
        table += struct.pack(f"{order}HH{word}", tag, entry.type, entry.count) + value.ljust(inline, b"\0")
    start = struct.pack(order + ("Q" if big else "H"), len(tags)) + table + bytes(inline)
    return start.ljust(behind - base, b"\0") + tail


# --- EXIF ------------------------------------------------------------------------------------------------------


def _exif_order(exif: bytes) -> str | None:
    return {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])


def read_exif(exif: bytes) -> Directory | None:
    """Read IFD0 of an EXIF stream and what is below it; None if it is no EXIF stream."""
    order = _exif_order(exif)
    if order is None or len(exif) < 8:
        return None
    (offset,) = struct.unpack_from(order + "I", exif, 4)
    return read_directory(lambda at, size: exif[at : at + size], offset, order)


def exif_from_directory(directory: Directory) -> bytes | None:
    """Make an EXIF stream of the descriptive tags of a TIFF file's first directory."""
    chosen = Directory(directory.order, describing(directory), directory.children)
    if not chosen.entries and not chosen.children:
        return None
    start = b"II*\0" if directory.order == "<" else b"MM\0*"
    return start + struct.pack(directory.order + "I", 8) + pack_directory(chosen, 8)


def describing(directory: Directory) -> dict[int, Entry]:
    """Return the tags of IFD0 that describe the scene, not the layout of the pixels."""
    return {
        tag: entry
        for tag, entry in directory.entries.items()
        # BigTIFF's 8-byte types do not exist in EXIF.
        if tag in _DESCRIPTIVE_TAGS and entry.type < 13
    }


def read_orientation(exif: bytes | None, xmp: bytes | None) -> int:
    """Return the orientation, 1 to 8: of EXIF or, if that says nothing, of XMP; 1 if neither can be read."""
    directory = read_exif(exif) if exif else None
    if directory is not None and (entry := directory.entries.get(ORIENTATION)) is not None:
        code = {1: "B", 3: "H", 4: "I"}.get(entry.type)
        value = struct.unpack_from(directory.order + code, entry.value)[0] if code else 1
        return value if 1 <= value <= 8 else 1
    if xmp and (match := re.search(rb"""tiff:Orientation(?:\s*=\s*["']|\s*>\s*)([1-8])\b""", xmp)):
        return int(match[1])
    return 1


def clean_exif(exif: bytes | None) -> bytes | None:
    """Reset the orientation to 1 and drop the thumbnail, in place; None if the stream cannot be understood.

    The thumbnail's directory is unlinked and its bytes are overwritten: unlinking alone would leave the old
    picture in the file.
    """
    if not exif:
        return None
    exif = exif.removeprefix(EXIF_PREFIX)
    order = _exif_order(exif)
    if order is None:
        return None
    stream = bytearray(exif)
    try:
        (first,) = struct.unpack_from(order + "I", stream, 4)
        second = _rewrite_table(stream, first, order)
        if second:
            _erase_thumbnail(stream, second, order)
    except struct.error:
        return None
    cleaned = bytes(stream)
    directory = read_exif(cleaned)
    return cleaned if directory is not None and (directory.entries or directory.children) else None


def resize_exif(exif: bytes, height: int, width: int) -> bytes:
    """Set PixelXDimension and PixelYDimension, where EXIF has them, to the size of the picture now."""
    order = _exif_order(exif)
    if order is None:
        return exif
    stream = bytearray(exif)
    with contextlib.suppress(struct.error):
        (first,) = struct.unpack_from(order + "I", stream, 4)
        for _, below in _slots(stream, first, order, {EXIF_POINTER}):
            (table,) = struct.unpack_from(order + "I", stream, below + 8)
            for tag, at in _slots(stream, table, order, {0xA002, 0xA003}):
                size = width if tag == 0xA002 else height
                struct.pack_into(order + "HHII", stream, at, tag, LONG, 1, size)
    return bytes(stream)


def _slots(stream: bytearray, table: int, order: str, tags: set[int]) -> Iterator[tuple[int, int]]:
    """Yield tag and position of the wanted slots of a directory."""
    (count,) = struct.unpack_from(order + "H", stream, table)
    for at in range(table + 2, table + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from(order + "H", stream, at)
        if tag in tags:
            yield tag, at


def _rewrite_table(stream: bytearray, first: int, order: str) -> int:
    """Reset the orientation, take previews out of IFD0 and unlink IFD1; return where IFD1 was, or 0."""
    (count,) = struct.unpack_from(order + "H", stream, first)
    start, end = first + 2, first + 2 + 12 * count
    (second,) = struct.unpack_from(order + "I", stream, end) if end + 4 <= len(stream) else (0,)
    if end > len(stream):
        raise struct.error("IFD0 is cut off")
    kept = bytearray()
    for at in range(start, end, 12):
        slot = bytes(stream[at : at + 12])
        tag, kind, number = struct.unpack_from(order + "HHI", slot)
        if tag == ORIENTATION:
            slot = struct.pack(order + "HHIHH", ORIENTATION, SHORT, 1, 1, 0)
        elif tag in _PREVIEW_TAGS:
            size = _TYPE_SIZES.get(kind, 0) * number
            if size > 4:
                _erase(stream, struct.unpack_from(order + "I", slot, 8)[0], size, after=end)
            continue
        kept += slot
    struct.pack_into(order + "H", stream, first, len(kept) // 12)
    # The next-directory link follows the last slot; zeros there and in the slots that were freed.
    room = min(end + 4, len(stream)) - start
    stream[start : start + room] = kept.ljust(room, b"\0")
    return second


def _erase_thumbnail(stream: bytearray, second: int, order: str) -> None:
    thumbnail = read_directory(lambda at, size: bytes(stream[at : at + size]), second, order, pointers=())

    def numbers(tag: int) -> tuple[int, ...]:
        entry = thumbnail.entries.get(tag)
        if entry is None or entry.type not in (SHORT, LONG):
            return ()
        return struct.unpack(f"{order}{entry.count}{'H' if entry.type == SHORT else 'I'}", entry.value)

    # 513/514: where a JPEG thumbnail lies and its size; 273/279: the same for strips of plain pixels.
    for offsets, sizes in ((513, 514), (273, 279)):
        for offset, size in zip(numbers(offsets), numbers(sizes), strict=False):
            _erase(stream, offset, size, after=8)
            if offset + size >= len(stream) > offset >= second:
                del stream[offset:]


def _erase(stream: bytearray, offset: int, size: int, after: int) -> None:
    stop = min(offset + size, len(stream))
    if after <= offset < stop:
        stream[offset:stop] = bytes(stop - offset)


# --- XMP -------------------------------------------------------------------------------------------------------

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_TIFF = "http://ns.adobe.com/tiff/1.0/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_NOTE = "http://ns.adobe.com/xmp/note/"
_IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"

# IPTC NewsCodes, digital source type: a composite of captured and generated elements.
_COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"


def clean_xmp(xmp: bytes | None) -> bytes | None:
    """Reset ``tiff:Orientation`` to 1 and drop ``xmp:Thumbnails``; None if the packet is not well-formed XMP.

    The rest of the packet stays as it is, to the letter. An unreadable packet is dropped, for nobody could say
    what it shows.
    """
    text = _decode_xmp(xmp)
    if text is None:
        return None
    text = _drop_property(text, _XMP, "Thumbnails")
    # Points to a part of the packet that Pillow does not read (JPEG's extended XMP).
    text = _drop_property(text, _NOTE, "HasExtendedXMP")
    for prefix in _prefixes(text, _TIFF):
        name = re.escape(f"{prefix}:Orientation")
        text = re.sub(rf"""(\b{name}\s*=\s*["'])[^"']*(["'])""", r"\g<1>1\g<2>", text)
        text = re.sub(rf"(<{name}\s*>)[^<]*(</{name}\s*>)", r"\g<1>1\g<2>", text)
    return text.encode() if _well_formed(text) else None


def state_origin(xmp: bytes | None, made_by: str) -> bytes:
    """Add to an XMP packet that the image was made in part by a trained model, and by which program.

    Parameters
    ----------
    xmp : bytes, optional
        The packet to add to; its other content is kept.
    made_by : str
        What made the image, for instance ``"inpaint encoder-photo"``; written as
        ``xmp:CreatorTool="Velatura: <made_by>"``.
    """
    text = _decode_xmp(xmp)
    if text is None or "</rdf:RDF>" not in text:
        text = (
            '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
            f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}"></rdf:RDF></x:xmpmeta>'
            '<?xpacket end="w"?>'
        )
    text = _drop_property(text, _IPTC_EXT, "DigitalSourceType")
    text = _drop_property(text, _XMP, "CreatorTool")
    about = re.search(r"""\brdf:about\s*=\s*("[^"]*"|'[^']*')""", text)
    quote = {'"': "&quot;"}
    description = (
        f'<rdf:Description rdf:about={about[1] if about else chr(34) * 2} xmlns:xmp="{_XMP}" '
        f'xmlns:Iptc4xmpExt="{_IPTC_EXT}" xmp:CreatorTool="{escape(f"Velatura: {made_by}", quote)}" '
        f'Iptc4xmpExt:DigitalSourceType="{_COMPOSITE}"/>'
    )
    head, tail = text.rsplit("</rdf:RDF>", 1)
    return f"{head}{description}</rdf:RDF>{tail}".encode()


def _decode_xmp(xmp: bytes | None) -> str | None:
    """Return the packet as text if it is well-formed, else None."""
    if not xmp:
        return None
    # XMP part 1, section 7.3: UTF-8 as a rule, UTF-16 or UTF-32 allowed; NUL bytes tell them apart.
    encodings = ("utf-8-sig",) if b"\0" not in xmp.rstrip(b"\0") else ("utf-16", "utf-32")
    for encoding in encodings:
        try:
            text = xmp.decode(encoding).rstrip("\0")
        except UnicodeDecodeError:
            continue
        if _well_formed(text):
            return text
    return None


def _well_formed(text: str) -> bool:
    parser = expat.ParserCreate("utf-8")

    def refuse(*_: object) -> None:
        # XMP has no document type; entities declared in one could grow without end.
        raise ValueError("document type in XMP")

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text.encode(), True)
    except (expat.ExpatError, ValueError):
        return False
    return True


def _prefixes(text: str, namespace: str) -> set[str]:
    """Return the prefixes that `text` binds to `namespace`."""
    return set(re.findall(rf"""\bxmlns:([\w.-]+)\s*=\s*["']{re.escape(namespace)}["']""", text))


def _drop_property(text: str, namespace: str, name: str) -> str:
    """Remove a property, written as an attribute or as an element."""
    for prefix in _prefixes(text, namespace):
        qualified = re.escape(f"{prefix}:{name}")
        text = re.sub(rf"""\s\b{qualified}\s*=\s*("[^"]*"|'[^']*')""", "", text)
        text = re.sub(rf"<{qualified}(\s[^<>]*)?/>", "", text)
        text = re.sub(rf"<{qualified}(\s[^<>]*)?>.*?</{qualified}\s*>", "", text, flags=re.DOTALL)
    return text


# --- ICC -------------------------------------------------------------------------------------------------------


def icc_space(icc: bytes | None) -> str | None:
    """Return the colour space of a profile (``"RGB"``, ``"GRAY"``, ``"CMYK"``), ICC.1 section 7.2.6."""
    return icc[16:20].decode("latin-1").strip() if icc and len(icc) >= 128 else None
