# SPDX-License-Identifier: MIT
#
# client-1.2.py - a client of protocol version 1.2, frozen: it knows nothing but vfun-protocol(7) as it was then
#
# Never change it: what it was promised it has to get for ever. See t/frozen.t.
import ctypes, mmap, os, select, socket, struct, sys, time

VERSION = 0x0102


def ask(kind, body=b""):
    """One control message and its reply: reason, body, text, descriptors."""
    s.send(struct.pack("<IHHIHH128s112s", 0x6E756676, kind, VERSION, kind + 40, 0, 0, body, b""))
    m, fds, _, _ = socket.recv_fds(s, 256, 4)
    assert len(m) == 256, "vfund has closed the connection"
    magic, got, version, tag, reason = struct.unpack_from("<IHHIH", m)
    assert (magic, got, version >> 8, tag) == (0x6E756676, kind + 0x8000, 1, kind + 40), "the reply's header"
    return reason, m[16:144], m[144:].split(b"\0")[0].decode(), fds


def u32(m, at):
    return struct.unpack_from("<I", m, at)[0]


def publish(p, cmd, args=(), flags=0, length=None):
    slot = 4096 + 64 * (p % slots)
    payload = struct.pack("<%dQ" % len(args), *args)
    struct.pack_into("<BBH", out, slot + 4, cmd, flags, len(payload) if length is None else length)
    out[slot + 8 : slot + 8 + len(payload)] = payload
    struct.pack_into("<I", out, slot, p + 1)


def ring():
    struct.pack_into("<I", out, 128, u32(out, 128) + 1)
    word = ctypes.byref(ctypes.c_uint32.from_buffer(out, 128))
    ctypes.CDLL(None).syscall(202, word, 1, 0x7FFFFFFF, None, None, 0)


def answer(p):
    """Of position p: flags, reason, payload. It has to come, and soon: no service may oversleep a ring."""
    slot = 4096 + 64 * (p % slots)
    until = time.monotonic() + 20
    while u32(inp, slot) != p + 1:
        assert u32(inp, 64) == 0, "the instance has ended"
        assert time.monotonic() < until, "position %d has no answer" % p
        time.sleep(0.001)
    state, flags, reason, n = struct.unpack_from("<BBBB", inp, slot + 4)
    assert state == 2 and n <= 56, "the answer's head"
    return flags, reason, inp[slot + 8 : slot + 8 + n]


def call(p, *args, **more):
    publish(p, *args, **more)
    ring()
    return answer(p)


def factorial(n):
    return n * factorial(n - 1) if n else 1


s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(os.environ["VFUN_RUN_DIR"] + "/control")
reason, grant, text, _ = ask(1, struct.pack("<32sHHBBHQQ", b"factorial", VERSION, VERSION, 0, 0, 16, 4096, 4096))
assert reason == 0, text
number, out_arena, in_arena, version, slots, target, arg_kind, res_kind, software_ok, spin = struct.unpack_from("<QQQHHBBBBI", grant)
assert version == VERSION and out_arena >= 4096 and in_arena >= 4096 and slots >= 16, "what is granted"
assert (target, arg_kind, res_kind) == (1, 1, 1), "what it is"
paths, bar, workers = struct.unpack_from("<IQH", grant, 36)
assert paths == 1 and bar == 0 and workers == int(sys.argv[1]), "paths and workers"
assert not any(grant[50:]) and software_ok == 0, "bytes that aren't in use"
reason, _, text, _ = ask(1, struct.pack("<32sHHBBHQQ", b"factorial", VERSION, VERSION, 2, 0, 16, 0, 0))
assert reason == 5 and text, "NO_HARDWARE"
reason, active, text, fds = ask(2, struct.pack("<Q", number))
assert reason == 0 and len(fds) == 2, text
instance, session, out_size, in_size = struct.unpack_from("<QQQQ", active)
ring_size = (slots * 64 + 4095) // 4096 * 4096
assert (out_size, in_size) == (4096 + ring_size + out_arena, 4096 + ring_size + in_arena), "sizes"
out = mmap.mmap(fds[0], out_size)
inp = mmap.mmap(fds[1], in_size, prot=mmap.PROT_READ)
for region, magic in (out, 0x3174754F6E754676), (inp, 0x315F6E496E754676):
    assert struct.unpack_from("<QQQQHHIQQ", region)[:7] == (magic, session, instance, len(region), VERSION, 64, slots), "header"

# ECHO; then a batch, for a service that sleeps by then, with one ring
assert call(0, 4, (1, 2, 3)) == (0, 0, struct.pack("<QQQ", 1, 2, 3)), "ECHO"
p = 1
for round in range(5):
    time.sleep(0.2)
    for i in range(16):
        publish(p + i, 2, ((p + i) % 30,))
    ring()
    for i in range(16):
        flags, reason, r = answer(p + i)
        assert (flags, reason, int.from_bytes(r, "little")) == (0, 0, factorial((p + i) % 30)), "an answer of a batch"
    p += 16
# A result that is longer than a slot
flags, reason, r = call(p, 2, (0, 0, 0, in_arena, 100), flags=1)
length, = struct.unpack("<Q", r)
assert (flags, reason) == (1, 0) and length <= in_arena, "bulk"
assert int.from_bytes(inp[4096 + ring_size :][:length], "little") == factorial(100), "100!"
# SET, GET, RST, each when the one before is answered
assert call(p + 1, 1, (20,))[1] == 0, "SET"
assert int.from_bytes(call(p + 2, 2)[2], "little") == factorial(20), "GET"
assert call(p + 3, 3)[1] == 0 and call(p + 4, 2)[1] == 71, "RST"
# What isn't right: command, flag, length, range, arguments
assert call(p + 5, 9)[1] == 64, "SLOT_COMMAND"
assert call(p + 6, 2, (5,), flags=4)[1] == 66, "SLOT_FLAGS"
assert call(p + 7, 2, (5,), length=8 + 256)[1] == 65, "SLOT_LENGTH"
assert call(p + 8, 2, (0, 0, in_arena, 1, 5), flags=1)[1] == 67, "SLOT_RANGE"
flags, reason, r = call(p + 9, 2, (1, 2, 3))
assert reason == 68, "ARGUMENTS"
assert r == b"", "no payload"
assert call(p + 10, 2, (0, 0, 0, 96, 100), flags=1)[1] == 0, "room enough"
assert call(p + 11, 2, (0, 0, 0, 8, 300), flags=1)[1] == 69, "RESULT_SIZE"
# LIST and STATUS, to the end
for kind in 4, 5:
    position, n = 0, 0
    while True:
        reason, body, text, _ = ask(kind, struct.pack("<Q", position))
        if reason == 13:
            break
        assert reason == 0, text
        position, = struct.unpack_from("<Q", body)
        n += 1
    assert n >= 1, "nothing listed"
assert ask(6)[0] == 0, "INFO"
assert ask(70)[0] == 1, "a type that isn't known"
assert u32(inp, 64) == 0, "gone before its time"
assert ask(3, struct.pack("<Q", instance))[0] == 0, "RELEASE"
assert u32(inp, 64) == 73, "gone"
assert ask(3, struct.pack("<Q", instance))[0] == 9, "NO_INSTANCE"
print("ok 1.2")
