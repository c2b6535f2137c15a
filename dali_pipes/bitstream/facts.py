"""The words for what is known of a packet: where decoding can start, what nobody needs, and what cannot be proved.

A fact is claimed only where the codec's syntax proves it. What is not understood is UNSAFE, of which each reason is a
fact of its own, and packets.pruning then keeps every packet.
"""

from __future__ import annotations

import enum


class Fact(enum.IntFlag):
    """What is known of one packet (a coded picture, or a VP9/AV1 group of frames that shows one)."""

    CLOSED = 1  # decoding can start here, and every later packet is decodable
    OPEN = 2  # decoding can start here, but pictures shown before this one also need the GOP before it
    DISPOSABLE = 4  # no other packet needs it
    LEADING_DROPPABLE = 8  # on OPEN: pictures shown before it may be left out when decoding starts here
    REORDERED = 16  # coded with bidirectional prediction

    # Why it shows no picture.
    NOT_SHOWN = 32  # the codec says so: a VP8, VP9 or AV1 frame that only others refer to, the second of two fields
    CUT_OFF = 64  # the container says so: an edit list leaves it out
    UNDECODABLE = 128  # it refers to pictures from before the start of the stream

    # Why pruning the stream is not provable.
    NOT_ANALYSED = 256  # there is no reader for the codec
    BAD_HEADERS = 512  # the stream's own headers are missing or cannot be read
    NEW_HEADERS = 1024  # parameter sets (H.264, HEVC), sequence or layer headers change in mid-stream
    DAMAGED = 2048  # the packet is not what the codec's syntax allows
    BAD_CONTAINER = 4096  # the demuxer complained: who knows what is missing
    LONE_FIELD = 8192  # one field of a frame, whose other field is in another packet
    NOT_ONE_PICTURE = 16384  # no picture, several, or parts of different ones
    UNKNOWN_SYNTAX = 32768  # a construct that the reader does not follow (layers of scalable video, AV1 decoder models)

    HIDDEN = NOT_SHOWN | CUT_OFF | UNDECODABLE
    UNSAFE = (
        NOT_ANALYSED
        | BAD_HEADERS
        | NEW_HEADERS
        | DAMAGED
        | BAD_CONTAINER
        | LONE_FIELD
        | NOT_ONE_PICTURE
        | UNKNOWN_SYNTAX
    )


# Plain integers: IntFlag arithmetic per packet would cost more than reading the packet.
CLOSED = int(Fact.CLOSED)
OPEN = int(Fact.OPEN)
DISPOSABLE = int(Fact.DISPOSABLE)
LEADING_DROPPABLE = int(Fact.LEADING_DROPPABLE)
REORDERED = int(Fact.REORDERED)
NOT_SHOWN = int(Fact.NOT_SHOWN)
CUT_OFF = int(Fact.CUT_OFF)
UNDECODABLE = int(Fact.UNDECODABLE)
NOT_ANALYSED = int(Fact.NOT_ANALYSED)
BAD_HEADERS = int(Fact.BAD_HEADERS)
NEW_HEADERS = int(Fact.NEW_HEADERS)
DAMAGED = int(Fact.DAMAGED)
BAD_CONTAINER = int(Fact.BAD_CONTAINER)
LONE_FIELD = int(Fact.LONE_FIELD)
NOT_ONE_PICTURE = int(Fact.NOT_ONE_PICTURE)
UNKNOWN_SYNTAX = int(Fact.UNKNOWN_SYNTAX)
HIDDEN = int(Fact.HIDDEN)
UNSAFE = int(Fact.UNSAFE)
