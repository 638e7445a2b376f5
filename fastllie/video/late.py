"""Streams that first appear in the middle of an MPEG transport stream: FFmpeg passes them over in silence."""

from collections.abc import Iterator

_SYNC, _PACKET = 0x47, 188
_TABLES = {0x00: "programs", 0x02: "streams"}  # table ids of PAT and PMT
_AT_ONCE = 20_000  # packets that are read together


def late_streams(name: str, known: set[int]) -> list[int]:
    """The PIDs of streams that a table of the file announces and that are not known from its beginning.

    Args:
        name: The path of a transport stream, of packets of 188 bytes, or 192 as in .m2ts.
        known: The PIDs of the streams that FFmpeg found when it opened the file.
    """
    programs: set[int] = set()
    announced: dict[int, None] = {}
    for pid, section in _sections(name, programs):
        if pid == 0:
            programs.update(_programs(section))
        else:
            announced.update(dict.fromkeys(_streams(section)))
    return [pid for pid in announced if pid not in known]


def _sections(name: str, programs: set[int]) -> Iterator[tuple[int, bytes]]:
    """The tables of programs and of their streams, each where it changes; `programs` grows meanwhile."""
    last: dict[int, bytes] = {}
    with open(name, "rb") as file:
        start = file.read(4 * 192)
        size, first = next(
            (
                (size, first)
                for size in (_PACKET, 192, 204)
                for first in range(size)
                if all(start[first + k * size : first + k * size + 1] == b"\x47" for k in range(3))
            ),
            (0, 0),
        )
        if not size:
            return
        file.seek(first)
        while part := file.read(size * _AT_ONCE):
            # most packets are none of these; the byte before the PID says where a table may begin
            for place in range(0, len(part) - _PACKET + 1, size):
                pid = (part[place + 1] & 0x1F) << 8 | part[place + 2]
                if (pid and pid not in programs) or part[place] != _SYNC or not part[place + 1] & 0x40:
                    continue
                section = _section(part[place : place + _PACKET])
                if section and last.get(pid) != section:
                    last[pid] = section
                    yield pid, section


def _section(packet: bytes) -> bytes:
    """The table that begins in a packet, as far as it lies in it."""
    begin = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
    if not packet[3] & 0x10 or begin >= len(packet):
        return b""
    section = packet[begin + 1 + packet[begin] :]
    if len(section) < 12 or section[0] not in _TABLES:
        return b""
    # without the checksum
    return section[: 3 + ((section[1] & 0x0F) << 8 | section[2]) - 4]


def _programs(section: bytes) -> Iterator[int]:
    for place in range(8, len(section) - 3, 4):
        if section[place : place + 2] != b"\0\0":
            yield (section[place + 2] & 0x1F) << 8 | section[place + 3]


def _streams(section: bytes) -> Iterator[int]:
    place = 12 + ((section[10] & 0x0F) << 8 | section[11])
    while place + 5 <= len(section):
        yield (section[place + 1] & 0x1F) << 8 | section[place + 2]
        place += 5 + ((section[place + 3] & 0x0F) << 8 | section[place + 4])
