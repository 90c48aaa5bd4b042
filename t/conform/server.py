# SPDX-License-Identifier: MIT
#
# server.py - does a server keep the rules S1 to S24 of vfun-protocol(7)?
#
#	python3 t/conform/server.py DIR [RULE ...]
#
# DIR holds the server's `control`, a socket for programs on the host. It must offer `factorial` as vfund does, with at
# least 16 slots and arenas of 64 KiB, and at least 8 instances. For each rule that can be tried from outside a line,
# `ok S1 - ...` or `not ok S1 - ... # why`; exits with 1 if there was any of the latter. The rest of the rules is said.
import mmap, os, select, struct, sys, time

from wire import *

folder = sys.argv[1]
wanted = set(sys.argv[2:])
failed = []
FACTORIAL = b"factorial"
ENDLESS = 10 ** 15


class Client:
    """A connection, and what was granted on it."""

    def __init__(self):
        self.s = connect(folder)
        self.tag = 100

    def ask(self, kind, body=b"", **more):
        self.tag += 1
        self.s.send(message(kind, body, tag=self.tag, **more))
        while True:
            r = receive(self.s)
            assert r, "the connection is closed"
            if r[0] == GONE + REPLY:
                continue
            assert r[2] == self.tag, "tag %d instead of %d" % (r[2], self.tag)
            assert r[0] in (kind + REPLY, REPLY), "type 0x%x" % r[0]
            return r

    def grant(self, **more):
        r = self.ask(NEGOTIATE, negotiate(FACTORIAL, **more))
        assert r[3] == 0, r[6]
        return Grant(r[5])

    def close(self):
        self.s.close()


class Instance(Client):
    def __init__(self, **more):
        super().__init__()
        self.g = self.grant(**more)
        r = self.ask(ACTIVATE, struct.pack("<Q", self.g.number))
        assert r[3] == 0, r[6]
        self.a, self.fds = Active(r[5]), r[7]
        self.out = mmap.mmap(self.fds[0], self.a.out_size)
        self.inp = mmap.mmap(self.fds[1], self.a.in_size, prot=mmap.PROT_READ)
        self.arena = PAGE + ring_size(self.g.slots)
        self.p = 0

    def slot(self, p):
        return PAGE + 64 * (p % self.g.slots)

    def publish(self, cmd, args=(), flags=0, length=None, limit=0, at=None):
        p = self.p if at is None else at
        payload = struct.pack("<%dQ" % len(args), *args)
        slot = self.slot(p)
        struct.pack_into("<BBBB", self.out, slot + 4, cmd, flags, len(payload) if length is None else length, limit)
        self.out[slot + 8 : slot + 8 + len(payload)] = payload
        put32(self.out, slot, p + 1)
        if at is None:
            self.p += 1
        return p

    def answered(self, p):
        return u32(self.inp, self.slot(p)) == p + 1

    def wait(self, p, seconds=20):
        until = time.monotonic() + seconds
        while not self.answered(p):
            assert u32(self.inp, H_GONE) == 0 or self.answered(p), "the instance has ended: %d" % u32(self.inp, H_GONE)
            assert time.monotonic() < until, "position %d has no answer" % p
            time.sleep(0.0005)
        state, flags, reason, n = struct.unpack_from("<BBBB", self.inp, self.slot(p) + 4)
        assert state == 2 and n <= 56, "state %d, %d bytes" % (state, n)
        return reason, flags, self.inp[self.slot(p) + 8 : self.slot(p) + 8 + n]

    def call(self, *args, **more):
        p = self.publish(*args, **more)
        wake(self.out)
        return self.wait(p)

    def number(self, n, reps=1):
        reason, flags, r = self.call(GET, (n, reps))
        assert reason == 0, "reason %d" % reason
        assert int.from_bytes(r, "little") == factorial(n), "%d! is wrong" % n

    def ended(self, seconds=20):
        until = time.monotonic() + seconds
        while not u32(self.inp, H_GONE):
            assert time.monotonic() < until, "the instance doesn't end"
            time.sleep(0.001)
        return u32(self.inp, H_GONE)


rules = []


def rule(name, text):
    def add(f):
        rules.append((name, text, f))
        return f
    return add


@rule("S1", "each request is answered once, with its type and tag")
def _():
    c = Client()
    for i in range(64):
        c.s.send(message(INFO, tag=i + 1))
    tags = sorted(receive(c.s)[2] for i in range(64))
    assert tags == list(range(1, 65)), "64 requests under way: %s" % tags
    assert not select.select([c.s], [], [], 0.2)[0], "something more"


@rule("S2", "version, type, magic and size are checked, and the connection lives on")
def _():
    c = Client()
    assert c.ask(INFO, version=0x0200)[3] == R_VERSION, "another major version"
    assert c.ask(70)[3] == MALFORMED, "an unknown type"
    r = c.ask(INFO, magic=0x12345678)
    assert (r[0], r[3]) == (REPLY, MALFORMED), "another magic"
    c.s.send(b"x" * 100)
    r = receive(c.s)
    assert (r[0], r[2], r[3]) == (REPLY, 0, MALFORMED), "another size"
    assert c.ask(INFO)[3] == 0, "it goes on"


@rule("S3", "reserved bytes of requests don't matter, and those of replies are 0")
def _():
    c = Client()
    r = c.ask(NEGOTIATE, negotiate(FACTORIAL) + b"\xaa" * 64)
    assert r[3] == 0, r[6]
    assert not any(r[5][100:]), "the grant"
    r = c.ask(ACTIVATE, struct.pack("<QI", Grant(r[5]).number, 0) + b"\x55" * 116)
    assert r[3] == 0 and not any(r[5][112:]), "the activation"


@rule("S4", "the highest common version, or VERSION; MALFORMED for a range upside down")
def _():
    c = Client()
    assert c.grant(low=0x0100, high=0x01FF).version >= VERSION, "a range up to more than there is"
    for v in 0x0100, 0x0101, 0x0102, 0x0103, 0x0104:
        assert c.grant(low=0x0100, high=v).version == v, "up to 0x%x" % v
    assert c.ask(NEGOTIATE, negotiate(FACTORIAL, low=0x01F0, high=0x01FF))[3] == R_VERSION, "later ones only"
    assert c.ask(NEGOTIATE, negotiate(FACTORIAL, low=0x0104, high=0x0100))[3] == MALFORMED, "upside down"
    assert c.ask(NEGOTIATE, negotiate(FACTORIAL, target=9))[3] == MALFORMED, "a target that isn't one"
    assert c.ask(NEGOTIATE, negotiate(b"n" * 32))[3] == MALFORMED, "a name without end"
    assert c.ask(NEGOTIATE, negotiate(b"nosuchfunction"))[3] == UNKNOWN, "a name of nothing"


@rule("S5", "sizes are not smaller than asked for, and of their form; too much is TOO_LARGE")
def _():
    c = Client()
    for slots, size in (1, 1), (3, 5000), (16, 65536):
        g = c.grant(slots=slots, out_arena=size, in_arena=size)
        assert g.slots >= slots and g.slots & (g.slots - 1) == 0, "slots"
        assert g.out_arena >= size and g.in_arena >= size and g.out_arena % PAGE == g.in_arena % PAGE == 0, "arenas"
    assert c.ask(NEGOTIATE, negotiate(FACTORIAL, slots=65535))[3] == TOO_LARGE, "slots"
    assert c.ask(NEGOTIATE, negotiate(FACTORIAL, in_arena=1 << 62))[3] == TOO_LARGE, "an arena"
    g = c.grant(low=0x0104)
    big = g.memory_max // 2 // PAGE * PAGE
    if big and big <= g.arena_max:
        assert c.ask(NEGOTIATE, negotiate(FACTORIAL, out_arena=big, in_arena=big))[3] == TOO_LARGE, "more memory than ever"


@rule("S6", "features: only what was offered, and none before 1.4")
def _():
    c = Client()
    assert c.grant(features=0).features == 0
    assert c.grant(features=F_LIMIT).features & ~F_LIMIT == 0
    assert c.grant(features=1 << 63 | F_CANCEL).features & ~F_CANCEL == 0, "a bit that nobody knows"
    assert c.grant(high=0x0103, low=0x0103, features=15).raw[50:100] == bytes(50), "before 1.4"


@rule("S7", "bytes that a version doesn't know are 0")
def _():
    c = Client()
    assert not any(c.grant(low=0x0100, high=0x0100).raw[36:]), "1.0"
    for v in 0x0101, 0x0102, 0x0103:
        g = c.grant(low=v, high=v)
        assert g.workers >= 1 and not any(g.raw[50:]), "0x%x" % v


@rule("S8", "a grant is good once, and on its own connection")
def _():
    a, b = Client(), Client()
    g = a.grant()
    body = struct.pack("<Q", g.number)
    assert b.ask(ACTIVATE, body)[3] == NO_GRANT, "on another connection"
    assert a.ask(ACTIVATE, body)[3] == 0, "its own"
    assert a.ask(ACTIVATE, body)[3] == NO_GRANT, "twice"
    assert a.ask(ACTIVATE, struct.pack("<Q", 0))[3] == NO_GRANT, "none"


@rule("S9", "both regions are ready with ACTIVATE's reply, and as it says")
def _():
    i = Instance(slots=16, out_arena=PAGE, in_arena=2 * PAGE)
    assert len(i.fds) == 2, "%d descriptors" % len(i.fds)
    for region, size, arena, magic in (i.out, i.a.out_size, i.g.out_arena, OUT_MAGIC), (i.inp, i.a.in_size, i.g.in_arena, IN_MAGIC):
        h = struct.unpack_from("<QQQQHHIQQQ", region)
        assert h == (magic, i.a.session, i.a.instance, size, VERSION, 64, i.g.slots, PAGE, PAGE + ring_size(i.g.slots), arena), h
        assert size == PAGE + ring_size(i.g.slots) + arena, "size"
        assert not any(region[i.arena :]), "the arena isn't zeros"
    assert os.fstat(i.fds[0]).st_size >= i.a.out_size, "dataout's file"


@rule("S10", "datain's descriptor is for reading only")
def _():
    i = Instance()
    try:
        mmap.mmap(i.fds[1], i.a.in_size)
        assert False, "it can be mapped for writing"
    except PermissionError:
        pass


@rule("S11", "a connection that closes takes its instances along, and nobody else's")
def _():
    a, b = Instance(), Instance()
    a.close()
    assert a.ended() != 0
    b.number(5)
    assert b.ask(RELEASE, struct.pack("<Q", a.a.instance))[3] == NO_INSTANCE, "it is still there"


@rule("S12", "what isn't there, or is another's, is NO_INSTANCE or NO_GRANT")
def _():
    c = Client()
    assert c.ask(RELEASE, struct.pack("<Q", 2 ** 63))[3] == NO_INSTANCE
    assert c.ask(ACTIVATE, struct.pack("<Q", 2 ** 63))[3] == NO_GRANT


@rule("S13", "each request is answered in its own slot")
def _():
    i = Instance()
    for turn in range(8):
        first = i.p
        for k in range(i.g.slots):
            i.publish(GET, (k % 20,))
        wake(i.out)
        for k in range(i.g.slots):
            reason, _, r = i.wait(first + k)
            assert reason == 0 and int.from_bytes(r, "little") == factorial(k % 20), "position %d" % (first + k)


@rule("S14", "ECHO returns its payload")
def _():
    i = Instance()
    for n in range(8):
        payload = tuple(0x0123456789ABCDEF + k for k in range(n))
        assert i.call(ECHO, payload) == (0, 0, struct.pack("<%dQ" % n, *payload)), "%d words" % n


@rule("S15", "what breaks the protocol is refused by its reason; 64 in a row are cut off")
def _():
    i = Instance()
    for reason, cmd, args, more in (
        (SLOT_COMMAND, 0, (), {}), (SLOT_COMMAND, 5, (), {}), (SLOT_FLAGS, GET, (5,), {"flags": 0x80}),
        (SLOT_FLAGS, GET, (5,), {"flags": ORDERED}), (SLOT_LENGTH, GET, (5,), {"length": 7}), (SLOT_LENGTH, GET, (5,), {"length": 64}),
        (SLOT_LENGTH, GET, (5,), {"limit": 1}), (SLOT_LENGTH, GET, (1, 2), {"flags": BULK}),
        (SLOT_RANGE, GET, (0, i.g.out_arena + 1, 0, 0, 5), {"flags": BULK}), (SLOT_RANGE, GET, (2 ** 64 - 8, 16, 0, 0, 5), {"flags": BULK}),
        (SLOT_RANGE, GET, (0, 0, i.g.in_arena, 1, 5), {"flags": BULK})):
        got = i.call(cmd, args, **more)
        assert got[0] == reason, "%d instead of %d" % (got[0], reason)
    i.number(5)
    for k in range(63):
        assert i.call(0)[0] == SLOT_COMMAND
    p = i.publish(0)
    wake(i.out)
    assert i.ended() == CUT_OFF, "gone"
    assert i.wait(p)[0] == CUT_OFF, "the last answer"


@rule("S16", "SET, RST and GET without arguments are in order, in one batch")
def _():
    i = Instance()
    for turn in range(100):
        first = i.p
        for k in range(0, 16, 2):
            i.publish(SET, ((turn + k) % 20, 1 + 37 * k % 50))
            i.publish(GET)
        wake(i.out)
        for k in range(0, 16, 2):
            assert i.wait(first + k)[0] == 0, "SET"
            reason, _, r = i.wait(first + k + 1)
            assert reason == 0 and int.from_bytes(r, "little") == factorial((turn + k) % 20), "turn %d, GET %d" % (turn, k)
    assert i.call(RST)[0] == 0 and i.call(GET)[0] == NO_DATA, "RST"
    assert i.call(SET)[0] == NO_DATA, "SET without arguments"


@rule("S17", "short results are inline, long ones in the room; else RESULT_SIZE")
def _():
    i = Instance(in_arena=65536)
    for n, flags, reason in (20, 0, 0), (80, 0, 0), (100, BULK, 0), (2000, BULK, 0), (40000, 0, RESULT_SIZE):
        got, gf, r = i.call(GET, (0, 0, 0, i.g.in_arena, n), flags=BULK)
        assert (got, gf) == (reason, flags), "%d!: reason %d, flags %d" % (n, got, gf)
        if not reason:
            if flags:
                r = i.inp[i.arena :][: struct.unpack("<Q", r)[0]]
            assert int.from_bytes(r, "little") == factorial(n) if n < 900 else r[-1] != 0, "%d! is wrong" % n
    assert i.call(GET, (100,))[0] == RESULT_SIZE, "no room"


@rule("S18", "nothing is written but answers, rooms and the header's words")
def _():
    i = Instance(in_arena=65536)
    before = i.inp[:]
    out = i.out[:]
    i.call(GET, (0, 0, 8192, 4096, 500), flags=BULK)
    after = i.inp[:]
    same = [before[a:b] == after[a:b] for a, b in ((0, 64), (64, 128), (320, PAGE), (PAGE + 64, i.arena + 8192), (i.arena + 8192 + 4096, len(before)))]
    assert all(same), same
    assert out[:64] == i.out[:64] and not any(i.out[i.arena :]), "dataout"


@rule("S19", "a client that sleeps is woken")
def _():
    i = Instance()
    for turn in range(20):
        bell = u32(i.inp, H_BELL)
        p = i.publish(GET, (20, 200000))
        put32(i.out, H_PARKED, 1)
        wake(i.out)
        i.wait(p)
        until = time.monotonic() + 5
        while u32(i.inp, H_BELL) == bell:
            assert time.monotonic() < until, "the bell isn't rung"
            time.sleep(0.001)
        put32(i.out, H_PARKED, 0)


@rule("S20", "a service that sleeps is woken")
def _():
    i = Instance()
    for turn in range(5):
        time.sleep(0.3)
        i.number(20)


@rule("S21", "a position that is skipped ends the instance with SLOT_SEQ")
def _():
    i = Instance()
    i.number(5)
    i.publish(GET, (5,), at=i.p + 1)
    wake(i.out)
    assert i.ended() == SLOT_SEQ
    i = Instance()
    i.number(5)
    i.publish(GET, (5,), at=i.p + i.g.slots)
    wake(i.out)
    assert i.ended() == SLOT_SEQ, "too early"


@rule("S22", "CANCELLED, LIMIT, and ORDERED")
def _():
    i = Instance(features=F_CANCEL | F_LIMIT | F_ORDERED)
    if i.g.features & F_LIMIT:
        assert i.call(GET, (20, ENDLESS), limit=(8 * 12) + 3)[0] == LIMIT, "LIMIT"
    if i.g.features & F_CANCEL:
        p = i.publish(GET, (20, ENDLESS))
        wake(i.out)
        time.sleep(0.05)
        put32(i.out, H_CANCEL + 4 * (p % i.g.slots), p + 1)
        put32(i.out, H_CANCELS, 1)
        assert i.wait(p)[0] == CANCELLED, "CANCELLED"
    if i.g.features & F_ORDERED:
        assert i.call(GET, (5,), flags=ORDERED)[0] == 0, "ORDERED"
    i.number(20)


@rule("S23", "after the end answers and results stay, until the connection closes or releases")
def _():
    i, other = Instance(in_arena=65536), Client()
    reason, flags, r = i.call(GET, (0, 0, 0, 4096, 200), flags=BULK)
    p = i.p - 1
    endless = i.publish(GET, (20, ENDLESS))
    wake(i.out)
    time.sleep(0.05)
    assert other.ask(RELEASE, struct.pack("<Q", i.a.instance))[3] == 0, "released by another connection of the same user"
    assert i.ended() == R_GONE
    time.sleep(0.5)
    assert i.answered(p) and not i.answered(endless), "the slots"
    length, = struct.unpack("<Q", r)
    assert int.from_bytes(i.inp[i.arena :][:length], "little") == factorial(200), "the result"
    assert u32(i.inp, H_GONE) == R_GONE and struct.unpack_from("<QQ", i.inp) == (IN_MAGIC, i.a.session), "the header"
    i.ask(RELEASE, struct.pack("<Q", i.a.instance))


@rule("S24", "no sentence in an answer before version 1.3")
def _():
    for version in 0x0102, 0x0103:
        i = Instance(low=version, high=version)
        reason, _, r = i.call(GET, (1, 2, 3))
        assert reason == ARGUMENTS and (len(r) > 0) == (version == 0x0103), "0x%x: %d bytes" % (version, len(r))


for name, text, f in rules:
    if wanted and name not in wanted:
        continue
    try:
        f()
        print("ok %s - %s" % (name, text), flush=True)
    except Exception as e:
        failed.append(name)
        print("not ok %s - %s # %s: %s" % (name, text, type(e).__name__, e), flush=True)
print("%d rules, %d broken%s" % (len(rules), len(failed), ": " + " ".join(failed) if failed else ""))
sys.exit(1 if failed else 0)
