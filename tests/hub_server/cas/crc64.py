"""CRC-64/NVME, the checksum of an upload by grant.

Reflected, polynomial 0xAD93D23594C93659, all bits set before and after:
https://reveng.sourceforge.io/crc-catalogue/all.htm#crc.cat.crc-64-nvme
"""

import numpy as np

_REFLECTED = 0x9A6C9329AC4BC9B5
_ALL = 0xFFFFFFFFFFFFFFFF
_LANES = 4096  # a long body is cut into so many, all of which go on at once


def _table() -> list[int]:
    table = list(range(256))
    for _ in range(8):
        table = [(each >> 1) ^ (_REFLECTED if each & 1 else 0) for each in table]
    return table


_TABLE = _table()
_TABLE_OF_LANES = np.array(_TABLE, dtype=np.uint64)


def crc64(content: bytes) -> int:
    """The checksum as a number. Long bodies go at 20 MB/s on a busy core, where one byte after the other goes at 3."""
    n_in_lane = len(content) // _LANES
    state = _ALL
    if n_in_lane >= 16:
        body, content = content[: n_in_lane * _LANES], content[n_in_lane * _LANES :]
        shift = _shift_by(n_in_lane)
        for lane in _of_lanes(body, n_in_lane):
            state = _apply(shift, state) ^ lane
    return _advance(state, content) ^ _ALL


def _advance(state: int, content: bytes) -> int:
    for byte in content:
        state = (state >> 8) ^ _TABLE[(state ^ byte) & 0xFF]
    return state


def _of_lanes(body: bytes, n_in_lane: int) -> list[int]:
    """The state after each lane alone, begun at 0; the checksum is linear, so they can be put together."""
    lanes = np.ascontiguousarray(np.frombuffer(body, np.uint8).reshape(_LANES, n_in_lane).T).astype(np.uint64)
    state = np.zeros(_LANES, np.uint64)
    for column in lanes:
        state = (state >> np.uint64(8)) ^ _TABLE_OF_LANES[((state ^ column) & np.uint64(0xFF)).astype(np.intp)]
    return [int(each) for each in state]


def _shift_by(n_bytes: int) -> list[int]:
    """What becomes of each of the 64 bits of a state when so many zero bytes follow."""
    step = [_advance(1 << bit, b"\0") for bit in range(64)]
    done = [1 << bit for bit in range(64)]
    while n_bytes:
        if n_bytes & 1:
            done = [_apply(step, each) for each in done]
        step = [_apply(step, each) for each in step]
        n_bytes >>= 1
    return done


def _apply(columns: list[int], state: int) -> int:
    result = 0
    while state:
        lowest = state & -state
        result ^= columns[lowest.bit_length() - 1]
        state ^= lowest
    return result
