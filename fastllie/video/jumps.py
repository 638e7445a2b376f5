"""Transport streams whose clock begins anew: broadcasts that were cut, camera files that were joined."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

# the containers whose times may jump, and whose streams all count the same clock
_CLOCKED = ("mpegts", "mpeg")
# Packets beside a jump that the demuxer calls cut off because the counters of the two sides do not fit
BESIDE = 3


class Place(NamedTuple):
    """Where a packet of a stream lies in a file with jumps.

    Attributes:
        part: How many jumps the stream has behind it.
        beside: Whether it lies next to one.
    """

    part: int
    beside: bool


class Jumps:
    """The jumps backwards of the clock of a file, found by reading its packets once.

    A stream jumps where a packet of it is to be decoded before the one in front of it. After each jump the
    streams, which need not come to it with the same packet, are later by one offset: the least with which
    none overlaps what it had before.

    Args:
        container: The open file, to know what kind it is; its packets stay where they are.
        name: Its path.

    Attributes:
        offsets: Of each part of the file, in seconds; the first is 0.
    """

    def __init__(self, av: Any, container: Any, name: str):
        self.offsets = [Fraction(0)]
        # stream -> the numbers of the packets that are the first of a part
        self._starts: dict[int, list[int]] = defaultdict(list)
        self._seen: Counter[int] = Counter()
        if container.format.name in _CLOCKED and os.path.isfile(name):
            with av.open(name, metadata_errors="replace") as other:
                self._offset(*self._scanned(_packets(av, other)))

    def __bool__(self) -> bool:
        return len(self.offsets) > 1

    def follow(self, packet: Any) -> Place:
        """Shift the next packet of the file, and say where it lies."""
        stream = packet.stream.index
        number = self._seen[stream]
        self._seen[stream] += 1
        starts = self._starts[stream]
        part = sum(start <= number for start in starts)
        offset = self.offsets[part] / packet.time_base
        for name in ("pts", "dts"):
            if offset and getattr(packet, name) is not None:
                setattr(packet, name, getattr(packet, name) + round(offset))
        return Place(part, any(abs(start - number) <= BESIDE for start in starts))

    def _scanned(self, packets: Iterator[Any]) -> tuple[Any, Any]:
        """When each stream begins in each part, and when it ends."""
        begins: dict[tuple[int, int], Fraction] = {}
        ends: dict[tuple[int, int], Fraction] = {}
        last: dict[int, Fraction] = {}
        numbers: Counter[int] = Counter()
        # part -> the first byte of it that is known
        places: list[int] = [0]
        for packet in packets:
            stream, number = packet.stream.index, numbers[packet.stream.index]
            numbers[stream] += 1
            time = packet.dts if packet.dts is not None else packet.pts
            if time is None:
                continue
            starts = self._starts[stream]
            if packet.dts is not None:
                now = packet.dts * packet.time_base
                if packet.stream.type not in ("video", "audio"):
                    # it may be silent over a jump, and is where the others are
                    here = sum(place <= (packet.pos or 0) for place in places) - 1
                    starts += [number] * (here - len(starts))
                elif stream in last and now < last[stream]:
                    starts.append(number)
                    if len(starts) == len(places):
                        places.append(packet.pos or 0)
                last[stream] = now
            key = len(starts), stream
            time = (packet.pts if packet.pts is not None else time) * packet.time_base
            begins[key] = min(begins.get(key, time), time)
            ends[key] = max(ends.get(key, time), time + (packet.duration or 0) * packet.time_base)
        return begins, ends

    def _offset(self, begins: Any, ends: Any) -> None:
        parts = max((part for part, _ in begins), default=0)
        for part in range(1, parts + 1):
            streams = [stream for place, stream in begins if place == part and (part - 1, stream) in ends]
            gaps = [ends[part - 1, stream] - begins[part, stream] for stream in streams]
            self.offsets.append(self.offsets[-1] + max(gaps, default=Fraction(0)))


def _packets(av: Any, container: Any) -> Iterator[Any]:
    """The packets up to the first damage, which whoever decodes them will name."""
    try:
        for packet in container.demux():
            if packet.size:
                yield packet
    except (av.FFmpegError, IndexError):
        # an IndexError: behind the last packet, where streams have appeared meanwhile
        return
