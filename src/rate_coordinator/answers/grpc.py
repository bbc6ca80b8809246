"""What gRPC tells of limits: status codes, and the delay within the details of a status. No library is needed."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

STATUS_DETAILS = "grpc-status-details-bin"
"""The trailer that carries a ``google.rpc.Status``: https://github.com/googleapis/googleapis/tree/master/google/rpc."""
PUSHBACK = "grpc-retry-pushback-ms"
"""The trailer by which a server asks to come back later:
https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback."""

LONGEST_DETAILS = 16 * 1024

# https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
_HTTP = {"RESOURCE_EXHAUSTED": 429, "UNAVAILABLE": 503}
_RETRY_INFO = b"type.googleapis.com/google.rpc.RetryInfo"


def http_status(name: str) -> int:
    """Return the HTTP status that a gRPC status stands for, as far as it tells of limits; 0 for the others."""
    return _HTTP.get(name, 0)


def retry_delay(details: bytes) -> float | None:
    """Return the seconds that a serialized ``google.rpc.Status`` asks to wait; None where it tells none.

    Args:
        details: As received, or still in Base64, as some proxies leave it.
    """
    for message in (details, _decoded(details)):
        for any_message in _fields(message[:LONGEST_DETAILS], 3):
            if _RETRY_INFO in list(_fields(any_message, 1)):
                for info in _fields(any_message, 2):
                    for duration in _fields(info, 1):
                        return _number(duration, 1) + _number(duration, 2) / 1e9
    return None


def _decoded(details: bytes) -> bytes:
    try:
        return base64.b64decode(details + b"=" * (-len(details) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _number(message: bytes, number: int) -> int:
    return next((value for field, value in _walk(message) if field == number and isinstance(value, int)), 0)


def _fields(message: bytes, number: int) -> Iterator[bytes]:
    return (value for field, value in _walk(message) if field == number and isinstance(value, bytes))


def _walk(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message, up to where it makes no sense.

    https://protobuf.dev/programming-guides/encoding/
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(message, position)
            if position > len(message):
                return
            yield key >> 3, value
        elif kind == 2:
            length, position = _varint(message, position)
            if position + length > len(message):
                return
            yield key >> 3, message[position : position + length]
            position += length
        elif kind in {1, 5}:
            position += 8 if kind == 1 else 4
        else:
            return


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    # Cut off, or longer than any number: past the end, so that nobody goes on from here.
    return 0, len(message) + 1
