"""Which partition a key belongs to: murmur2 of the key's UTF-8 text modulo N, as Kafka's Java client does it, a column at a time."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_SEED, _M, _R = np.uint32(0x9747B28C), np.uint32(0x5BD1E995), np.uint32(24)


def partitions_of(keys: pa.Array, partitions: int) -> NDArray[np.int32]:
    """The partition of each key (strings, or integers as decimal text); shape (n,), -1 for a null key."""
    encoded = pc.dictionary_encode(keys, null_encoding="mask")
    distinct = encoded.dictionary.cast(pa.string())
    table = np.append(_hash_all(distinct) & np.uint32(0x7FFFFFFF), np.uint32(0)).astype(np.int64) % partitions
    table[-1] = -1
    codes = encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
    return np.asarray(table[codes], np.int32)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of one key."""
    return int(partitions_of(pa.array([key.decode()]), partitions)[0])


def _hash_all(texts: pa.StringArray) -> NDArray[np.uint32]:
    """murmur2 of every text, computed together for all texts of one length."""
    count = len(texts)
    hashes = np.zeros(count, dtype=np.uint32)
    if count == 0:
        return hashes
    buffers = texts.buffers()
    offsets = np.frombuffer(buffers[1], dtype=np.int32)[texts.offset : texts.offset + count + 1].astype(np.int64)
    data = np.frombuffer(buffers[2], dtype=np.uint8) if buffers[2] is not None else np.zeros(0, np.uint8)
    lengths = np.diff(offsets)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        octets = data[offsets[rows][:, None] + np.arange(length)] if length else np.zeros((len(rows), 0), np.uint8)
        hashes[rows] = _murmur2(octets)
    return hashes


def _murmur2(octets: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """murmur2 of each row; shape (n, length) to (n,). Overflow is meant: arithmetic is modulo 2^32."""
    length = octets.shape[1]
    with np.errstate(over="ignore"):
        state = np.full(octets.shape[0], _SEED ^ np.uint32(length), dtype=np.uint32)
        whole = length // 4 * 4
        blocks = np.ascontiguousarray(octets[:, :whole]).view("<u4")
        for column in range(blocks.shape[1]):
            k = blocks[:, column] * _M
            k = (k ^ (k >> _R)) * _M
            state = (state * _M) ^ k
        tail = octets[:, whole:].astype(np.uint32)
        for place in range(tail.shape[1] - 1, -1, -1):
            state = state ^ (tail[:, place] << np.uint32(8 * place))
        if tail.shape[1]:
            state = state * _M
        state = (state ^ (state >> np.uint32(13))) * _M
        return state ^ (state >> np.uint32(15))
