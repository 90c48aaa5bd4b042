# SPDX-License-Identifier: MIT
#
# wire.py - vfun-protocol(7) as numbers: messages, regions, slots; for both halves of the conformance kit
#
# Written from the page, not from the implementation: it includes nothing of it.
import ctypes, os, socket, struct

MAGIC = 0x6E756676
REPLY = 0x8000
VERSION = 0x0104
NEGOTIATE, ACTIVATE, RELEASE, LIST, STATUS, INFO, SIGNATURE, RELOAD, GONE = range(1, 10)
MALFORMED, R_VERSION, UNKNOWN, DENIED, NO_HARDWARE, NO_RESOURCE, TOO_LARGE, NO_GRANT, NO_INSTANCE = range(1, 10)
END = 13
SLOT_COMMAND, SLOT_LENGTH, SLOT_FLAGS, SLOT_RANGE, ARGUMENTS, RESULT_SIZE, FUNCTION, NO_DATA, CUT_OFF, R_GONE = range(64, 74)
CANCELLED, LIMIT, SLOT_SEQ = 76, 77, 78
SET, GET, RST, ECHO = 1, 2, 3, 4
BULK, LONG, ORDERED = 1, 2, 4
F_CANCEL, F_LIMIT, F_ORDERED, F_EVENTFD = 1, 2, 4, 8
OUT_MAGIC, IN_MAGIC = 0x3174754F6E754676, 0x315F6E496E754676
PAGE = 4096
H_GONE, H_BELL, H_PARKED, H_UNTIL, H_CANCELS, H_CANCEL = 64, 128, 192, 200, 204, 320


def message(kind, body=b"", version=VERSION, tag=0, magic=MAGIC, reason=0, text=b""):
    return struct.pack("<IHHIHH128s112s", magic, kind, version, tag, reason, 0, body, text)


def negotiate(function, low=VERSION, high=VERSION, target=0, slots=16, out_arena=PAGE, in_arena=PAGE, features=0, wait=0):
    return struct.pack("<32sHHBBHQQQ", function, low, high, target, wait, slots, out_arena, in_arena, features)


def ring_size(slots):
    return (slots * 64 + PAGE - 1) // PAGE * PAGE


def u32(region, at):
    return struct.unpack_from("<I", region, at)[0]


def put32(region, at, value):
    struct.pack_into("<I", region, at, value & 0xFFFFFFFF)


def futex(region, at, op, value, seconds=None):
    """FUTEX_WAIT (0) or FUTEX_WAKE (1) on a word of a region."""
    word = ctypes.byref(ctypes.c_uint32.from_buffer(region, at))
    limit = ctypes.byref((ctypes.c_long * 2)(int(seconds), int(seconds % 1 * 1e9))) if seconds is not None else None
    return ctypes.CDLL(None).syscall(202, word, op, value, limit, None, 0)


def wake(region):
    """Ring for whoever sleeps on this region's bell."""
    put32(region, H_BELL, u32(region, H_BELL) + 1)
    return futex(region, H_BELL, 1, 0x7FFFFFFF)


class Grant:
    def __init__(self, b):
        (self.number, self.out_arena, self.in_arena, self.version, self.slots, self.target, self.arg_kind, self.res_kind,
         self.software_ok, self.spin_us, self.paths, self.bar, self.workers, self.slots_max, self.call_ms, self.features,
         self.arena_max, self.memory_max, self.memory_left, self.instances_max, self.instances_left,
         self.grant_s) = struct.unpack_from("<QQQHHBBBBIIQHHIQQQQIII", b)
        self.raw = b


class Active:
    def __init__(self, b):
        self.instance, self.session, self.out_size, self.in_size, self.paths = struct.unpack_from("<QQQQI", b)


def connect(folder):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(20)
    s.connect(os.path.join(folder, "control"))
    return s


def receive(s):
    """type, version, tag, reason, flags, body, text, descriptors; None at the end."""
    m, fds, _, _ = socket.recv_fds(s, 512, 8)
    if not m:
        return None
    assert len(m) == 256, "a message of %d bytes" % len(m)
    magic, kind, version, tag, reason, flags = struct.unpack_from("<IHHIHH", m)
    assert magic == MAGIC, "the magic"
    return kind, version, tag, reason, flags, m[16:144], m[144:].split(b"\0")[0].decode(), fds


def factorial(n):
    return n * factorial(n - 1) if n else 1
