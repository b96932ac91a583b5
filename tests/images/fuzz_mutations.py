"""What the fuzzer does to a file: a short list of steps that can be written down.

A step is a list, JSON as it stands:

====================================  =============================================
``["flip", offset, bit]``             turn one bit
``["set", offset, "hex"]``            overwrite bytes
``["cut", length]``                   keep the first bytes only
``["drop", offset, length]``          take bytes out
``["repeat", offset, length, times]`` insert bytes again, behind themselves
``["swap", a, b, length]``            exchange two stretches
``["splice", name, here, there]``     go on with another file's bytes
``["checksums"]``                     make the checksums of a PNG right again
====================================  =============================================
"""

import struct
import zlib

__all__ = ["mutate", "plan_mutations"]

_PNG = b"\x89PNG\r\n\x1a\n"

#: Numbers at which readers go wrong.
_EDGES = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 127, 128, 255, 256)
_EDGES += (511, 1024, 4096, 32767, 32768, 65534, 65535, 65536, 2**24, 2**31 - 1)
_EDGES += (2**31, 2**32 - 2, 2**32 - 1)

#: DICOM attributes that say how pixels are stored or shown, and the bytes of a number.
_US_TAGS = (
    [(0x0028, element) for element in (0x02, 0x06, 0x10, 0x11, 0x100, 0x101, 0x102)]
    + [(0x0028, element) for element in (0x103, 0x120, 0x1101, 0x1102, 0x1103)]
    + [(0x0028, 0x3002), (0x0028, 0x0121)]
)
_TEXT_TAGS = [(0x0028, element) for element in (0x04, 0x08, 0x1050, 0x1051, 0x1052)]
_TEXT_TAGS += [(0x0028, 0x1053), (0x0028, 0x1056), (0x0008, 0x0060)]
_TEXTS = (b"0", b"-1", b"1", b"99999999", b"1e308", b"nan", b"-1e-300", b"2.5")
_TEXTS += (b"RGB", b"MONOCHROME1", b"YBR_FULL_422", b"PALETTE COLOR", b"YBR_RCT")
_TEXTS += (b"CT", b"MR", b"US", b"MG", b"SIGMOID", b"1\\2\\3", b"")

_SYNTAXES = ("", ".1", ".2", ".1.99", ".5", ".4.50", ".4.51", ".4.57", ".4.70")
_SYNTAXES += (".4.80", ".4.81", ".4.90", ".4.91", ".4.201", ".4.203", ".4.100")


def plan_mutations(rng, content, others):
    """Return some steps for one file; ``others`` are names to splice with."""
    n_steps = int(rng.choice([1, 1, 1, 1, 2, 2, 3, 8]))
    steps = []
    for _ in range(n_steps):
        kinds = [_anywhere, _anywhere, _header, _stretch, _stretch]
        if content.startswith(_PNG):
            kinds += [_chunk] * 3
        elif content[128:132] == b"DICM" or content[:1] == b"\x08":
            # A stretch moved mostly leaves no file that goes on to be decoded.
            kinds = [_anywhere, _anywhere, _anywhere, _header, _stretch]
            kinds += [_tag, _tag, _tag, _syntax, _codestream, _codestream]
        elif content[:2] in (b"II", b"MM"):
            kinds += [_directory] * 3
        elif content[:2] == b"\xff\xd8":
            kinds += [_codestream] * 2
        steps += kinds[rng.integers(len(kinds))](rng, content)
    if rng.random() < 0.05:
        here, there = (int(rng.integers(1, 2**31)) for _ in range(2))
        steps.append(["splice", others[rng.integers(len(others))], here, there])
    if content.startswith(_PNG) and rng.random() < 0.7:
        steps.append(["checksums"])
    return steps


def mutate(content, steps, seeds):
    """Return the content after the steps; places beyond its end are wrapped."""
    data = bytearray(content)
    for name, *arguments in steps:
        if not data:
            break
        _STEPS[name](data, *arguments, seeds=seeds)
    return bytes(data)


# ------------------------------------------------------------------ how steps are done


def _flip(data, offset, bit, *, seeds):
    data[offset % len(data)] ^= 1 << bit


def _set(data, offset, hexadecimal, *, seeds):
    new = bytes.fromhex(hexadecimal)
    offset %= len(data)
    data[offset : offset + len(new)] = new[: len(data) - offset]


def _cut(data, length, *, seeds):
    del data[length % len(data) :]


def _drop(data, offset, length, *, seeds):
    offset %= len(data)
    del data[offset : offset + length]


def _repeat(data, offset, length, times, *, seeds):
    offset %= len(data)
    stretch = bytes(data[offset : offset + length])
    data[offset:offset] = stretch * times


def _swap(data, a, b, length, *, seeds):
    a, b = sorted((a % len(data), b % len(data)))
    length = min(length, b - a, len(data) - b)
    data[a : a + length], data[b : b + length] = (
        data[b : b + length],
        data[a : a + length],
    )


def _splice(data, other, here, there, *, seeds):
    tail = seeds[other]
    data[here % len(data) :] = tail[there % len(tail) :]


def _checksums(data, *, seeds):
    for start, length in _png_chunks(data):
        end = start + 8 + length
        if end + 4 <= len(data):
            data[end : end + 4] = struct.pack(">I", zlib.crc32(data[start + 4 : end]))


_STEPS = {
    "checksums": _checksums,
    "cut": _cut,
    "drop": _drop,
    "flip": _flip,
    "repeat": _repeat,
    "set": _set,
    "splice": _splice,
    "swap": _swap,
}


# ------------------------------------------------------------- how steps are thought of


def _anywhere(rng, content):
    place = int(rng.integers(len(content)))
    if rng.random() < 0.5:
        return [["flip", place, int(rng.integers(8))]]
    return [["set", place, _bytes(rng, int(rng.integers(1, 9)))]]


def _header(rng, content):
    place = int(rng.integers(min(len(content), 1024)))
    return [["set", place, _number(rng, int(rng.choice([1, 2, 4])), "<>"[place % 2])]]


def _stretch(rng, content):
    place, other = (int(rng.integers(len(content))) for _ in range(2))
    length = int(2 ** rng.uniform(0, 12))
    choice = rng.integers(5)
    if choice == 0:
        return [["cut", place]]
    if choice == 1:
        return [["drop", place, length]]
    if choice == 2:
        return [["repeat", place, length, int(rng.choice([1, 2, 50]))]]
    if choice == 3:
        return [["swap", place, other, length]]
    return [["set", place, ("00", "ff")[length % 2] * min(length, 512)]]


def _chunk(rng, content):
    """Edit, drop, repeat or exchange whole chunks of a PNG."""
    chunks = list(_png_chunks(content))
    start, length = chunks[rng.integers(len(chunks))]
    choice = rng.integers(5)
    if choice == 0:
        return [["drop", start, length + 12]]
    if choice == 1:
        return [["repeat", start, length + 12, int(rng.choice([1, 2, 20]))]]
    if choice == 2:
        other, _ = chunks[rng.integers(len(chunks))]
        return [["swap", start, other, length + 12]]
    # Of a length, a kind or the data; the header's data is where sizes are.
    place = start + int(rng.integers(min(length + 8, 32)))
    return [["set", place, _number(rng, int(rng.choice([1, 4])), ">")]]


def _png_chunks(data):
    start = len(_PNG)
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        yield start, min(length, len(data))
        start += 12 + length


def _directory(rng, content):
    """Edit one entry of the first directory of a TIFF: tag, type, count or value."""
    order = "<" if content[:2] == b"II" else ">"
    is_big = content[2 if order == "<" else 3] == 43
    if is_big:
        (start,) = struct.unpack_from(order + "Q", content, 8)
        (n_entries,) = struct.unpack_from(order + "Q", content, start)
        first, size = start + 8, 20
    else:
        (start,) = struct.unpack_from(order + "I", content, 4)
        (n_entries,) = struct.unpack_from(order + "H", content, start)
        first, size = start + 2, 12
    entry = first + size * int(rng.integers(n_entries))
    place, width = [(0, 2), (2, 2), (4, 4), (size - 4, 2), (size - 4, 4)][
        rng.integers(5)
    ]
    return [["set", entry + place, _number(rng, width, order)]]


def _tag(rng, content):
    """Give one DICOM attribute another value, in the length that it has."""
    is_text = rng.random() < 0.35
    tags = _TEXT_TAGS if is_text else _US_TAGS
    for _ in range(8):
        group, element = tags[rng.integers(len(tags))]
        for order in "<>":
            place = content.find(struct.pack(order + "HH", group, element), 132)
            if place >= 0:
                if not is_text:
                    return [["set", place + 8, _number(rng, 2, order)]]
                length = min(content[place + 6], 16) if place + 6 < len(content) else 2
                text = _TEXTS[rng.integers(len(_TEXTS))].ljust(length)[:length]
                return [["set", place + 8, text.hex()]]
    return _header(rng, content)


def _syntax(rng, content):
    """Announce another transfer syntax."""
    place = content.find(b"\x02\x00\x10\x00UI")
    if place < 0:
        return _header(rng, content)
    length = int.from_bytes(content[place + 6 : place + 8], "little")
    uid = "1.2.840.10008.1.2" + _SYNTAXES[rng.integers(len(_SYNTAXES))]
    # A shorter one is padded; a longer one is told its length and room is made.
    text = uid.encode().ljust(len(uid) + len(uid) % 2, b"\0")
    steps = []
    if len(text) > length:
        steps.append(["repeat", place + 8, len(text) - length, 1])
    elif len(text) < length:
        steps.append(["drop", place + 8, length - len(text)])
    steps.append(["set", place + 6, struct.pack("<H", len(text)).hex()])
    return [*steps, ["set", place + 8, text.hex()]]


def _codestream(rng, content):
    """Edit the header of a JPEG, JPEG-LS, JPEG 2000 or RLE frame."""
    heads = (
        b"\xff\xd8\xff",
        b"\xff\x4f\xff\x51",
        b"\xff\xf7",
        b"\xff\xc0",
        b"\xff\xc3",
    )
    heads += (b"\xff\xc4", b"\xff\xda", b"\xff\x52", b"\xff\x5c", b"\xff\x90")
    heads += (b"\xfe\xff\x00\xe0",)
    found = [place for head in heads if (place := content.find(head)) >= 0]
    if not found:
        return _anywhere(rng, content)
    place = found[rng.integers(len(found))] + int(rng.integers(48))
    return [["set", place, _number(rng, int(rng.choice([1, 2, 4])), ">")]]


def _number(rng, width, order):
    value = _EDGES[rng.integers(len(_EDGES))]
    if rng.random() < 0.2:
        value = int(rng.integers(2**32))
    value %= 256**width
    return value.to_bytes(width, "little" if order == "<" else "big").hex()


def _bytes(rng, length):
    return rng.integers(0, 256, length, dtype="uint8").tobytes().hex()
