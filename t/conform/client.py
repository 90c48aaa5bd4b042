# SPDX-License-Identifier: MIT
#
# client.py - does a client keep the rules C1 to C13 of vfun-protocol(7)?
#
#	python3 t/conform/client.py CMD [ARG ...]
#
# `CMD ARG ... N` has to call factorial(N) by the server in $VFUN_RUN_DIR, print the number and exit with 0, or exit with
# anything else. Here it meets a server that is made of this file, which behaves well at first, and then ends, overtakes,
# and lies as the page says that servers may, or might. A result that isn't the whole right one, with exit status 0, breaks
# the rule. For each rule that can be tried from outside, on the host, a line; C6 needs a guest.
import mmap, os, subprocess, sys, tempfile, threading, time

from wire import *

command = sys.argv[1:]
failed = []


class Server:
    """One connection's worth of a server. What it does differently, subclasses say."""

    features = 15
    workers = 1
    version = VERSION
    sleepers = 1

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="conform-")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.folder + "/control")
        self.listener.listen(8)
        self.faults = []
        self.inp = self.out = None
        self.over = False
        self.conns = []
        threading.Thread(target=self.accept, daemon=True).start()

    def check(self, what, text):
        if not what:
            self.faults.append(text)

    def accept(self):
        while not self.over:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            self.conns.append(s)
            threading.Thread(target=self.talk, args=(s,), daemon=True).start()

    def talk(self, s):
        while True:
            try:
                m, fds, _, _ = socket.recv_fds(s, 512, 8)
            except OSError:
                return
            if not m:
                self.closed()
                return
            self.check(len(m) == 256 and not fds, "C1: a request of %d bytes, %d descriptors" % (len(m), len(fds)))
            magic, kind, version, tag, reason, flags = struct.unpack_from("<IHHIHH", m)
            self.check((magic, version >> 8, reason, flags) == (MAGIC, 1, 0, 0) and not any(m[144:]), "C1: a request's header")
            self.request(s, kind, tag, m[16:144])

    def reply(self, s, kind, tag, body=b"", reason=0, text=b"", fds=()):
        socket.send_fds(s, [message(kind + REPLY, body, version=self.version, tag=tag, reason=reason, text=text)], fds)

    def request(self, s, kind, tag, body):
        if kind == NEGOTIATE:
            self.negotiate(s, tag, body)
        elif kind == ACTIVATE:
            self.check(not any(body[12:]), "C1: reserved bytes of ACTIVATE")
            self.activate(s, tag)
        elif kind == RELEASE:
            self.released()
            self.reply(s, kind, tag)
        elif kind == LIST and not any(body[:8]):
            self.reply(s, kind, tag, struct.pack("<Q32s16s64sBBBB", 1, b"factorial", b"conform", b"n!", 1, 1, 1, 0))
        elif kind == LIST:
            self.reply(s, kind, tag, reason=END)
        elif kind == SIGNATURE and self.version >= 0x0103:
            text = b"n u64, reps u64 1.. default 1 -> int"
            self.reply(s, kind, tag, struct.pack("<I", len(text)) + text)
        else:
            self.reply(s, kind, tag, reason=MALFORMED, text=b"not here")

    def negotiate(self, s, tag, body):
        name, low, high, target, wait, slots, out_arena, in_arena, features = struct.unpack_from("<32sHHBBHQQQ", body)
        self.check(not any(body[64:]), "C1: reserved bytes of NEGOTIATE")
        self.granted = min(high, max(low, self.version))
        if not low <= self.version:
            self.reply(s, NEGOTIATE, tag, reason=R_VERSION, text=b"only an older version")
            return
        self.slots = 16
        while self.slots < slots:
            self.slots *= 2
        self.out_arena, self.in_arena = ((n + PAGE - 1) // PAGE * PAGE for n in (out_arena, in_arena))
        self.acknowledged = features & self.features & 7 if self.granted >= 0x0104 else 0
        workers = self.workers if self.granted >= 0x0101 else 0
        late = struct.pack("<HIQQQQIII", 16, 0, self.acknowledged, 1 << 30, 1 << 30, 1 << 30, 64, 64, 60)
        self.reply(s, NEGOTIATE, tag, struct.pack("<QQQHHBBBBIIQH", 4711, self.out_arena, self.in_arena, self.granted, self.slots,
                   1, 1, 1, 0, 50, 1 if workers else 0, 0, workers) + (late if self.granted >= 0x0104 else b""))

    def make(self, magic, arena, session):
        size = PAGE + ring_size(self.slots) + arena
        fd = os.memfd_create("conform")
        os.ftruncate(fd, size)
        m = mmap.mmap(fd, size)
        struct.pack_into("<QQQQHHIQQQ", m, 0, magic, session, 1, size, self.granted, 64, self.slots, PAGE, PAGE + ring_size(self.slots), arena)
        return fd, m, size

    session = session_shown = 0x1122334455667788

    def activate(self, s, tag):
        out_fd, self.out, out_size = self.make(OUT_MAGIC, self.out_arena, self.session_shown)
        in_fd, self.inp, in_size = self.make(IN_MAGIC, self.in_arena, self.session_shown)
        self.read_fd = os.open("/proc/self/fd/%d" % in_fd, os.O_RDONLY)
        for w in range(self.workers):
            threading.Thread(target=self.serve, args=(w,), daemon=True).start()
        self.before_active(s, (out_fd, self.read_fd))
        self.reply(s, ACTIVATE, tag, struct.pack("<QQQQI", 1, self.session, out_size, in_size, 1) + b"\0\0\0\0conform.1", fds=(out_fd, self.read_fd))

    def before_active(self, s, fds):
        pass

    def serve(self, worker):
        p = worker
        while not self.over:
            slot = PAGE + 64 * (p % self.slots)
            if u32(self.out, slot) != p + 1:
                self.idle(worker, slot, p)
                continue
            cmd, flags, n, limit = struct.unpack_from("<BBBB", self.out, slot + 4)
            payload = self.out[slot + 8 : slot + 8 + min(n, 56)]
            self.check(n <= 56 and n % 8 == 0 and cmd in (SET, GET, RST, ECHO), "C1: a slot: command %d, length %d" % (cmd, n))
            self.check(self.acknowledged & F_LIMIT or not limit, "C4: a limit without the feature")
            self.check(not flags & ~(BULK | LONG | (ORDERED if self.acknowledged & F_ORDERED else 0)), "C4: flags %d" % flags)
            self.check(u32(self.inp, slot) in (0, p + 1 - self.slots), "C7: a slot is used before its answer was there")
            room = (0, 0)
            if flags & BULK:
                i_off, i_len, o_off, o_len = struct.unpack_from("<QQQQ", payload)
                self.check(i_off + i_len <= self.out_arena and o_off + o_len <= self.in_arena, "C1: a bulk descriptor")
                room, payload = (o_off, o_len), payload[32:]
            self.obey(p, slot, cmd, payload, room)
            p += self.workers

    def idle(self, worker, slot, p):
        time.sleep(0.0005)

    def obey(self, p, slot, cmd, payload, room):
        if cmd == ECHO:
            self.answer(p, slot, payload)
        elif cmd == GET and len(payload) >= 8:
            self.result(p, slot, factorial(struct.unpack_from("<Q", payload)[0]), room)
        else:
            self.answer(p, slot, b"")

    def result(self, p, slot, number, room):
        """True unless the room is too small."""
        r = number.to_bytes(max(1, (number.bit_length() + 7) // 8), "little")
        if len(r) <= 56:
            self.answer(p, slot, r)
            return True
        if len(r) > room[1]:
            self.answer(p, slot, struct.pack("<Q", len(r)), reason=RESULT_SIZE)
            return False
        at = PAGE + ring_size(self.slots) + room[0]
        self.inp[at : at + len(r)] = r
        self.answer(p, slot, struct.pack("<Q", len(r)), flags=BULK)
        return True

    def answer(self, p, slot, payload, reason=0, flags=0, length=None):
        self.inp[slot + 8 : slot + 8 + len(payload)] = payload
        struct.pack_into("<BBBB", self.inp, slot + 4, 2, flags, reason, len(payload) if length is None else length)
        put32(self.inp, slot, p + 1)
        if u32(self.out, H_PARKED):
            wake(self.inp)

    def end(self, reason):
        put32(self.inp, H_GONE, reason)
        wake(self.inp)

    def wipe(self):
        """What a server may do as soon as the lease is over."""
        if self.inp:
            self.inp[PAGE:] = bytes(len(self.inp) - PAGE)

    def released(self):
        self.wipe()

    def closed(self):
        self.wipe()

    def run(self, n, seconds=20):
        """The client's exit status (None: it doesn't end) and what it printed."""
        env = dict(os.environ, VFUN_RUN_DIR=self.folder)
        try:
            r = subprocess.run(command + [str(n)], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds)
            return r.returncode, r.stdout.decode(errors="replace").strip(), r.stderr.decode(errors="replace").strip()
        except subprocess.TimeoutExpired:
            return None, "", "doesn't end within %d s" % seconds
        finally:
            self.over = True
            self.listener.close()
            for s in self.conns:
                s.close()
            os.unlink(self.folder + "/control")
            os.rmdir(self.folder)


def works(server, numbers=(20, 100)):
    """It has to get the right result from such a server."""
    for n in numbers:
        s = server()
        status, out, err = s.run(n)
        assert not s.faults, s.faults[0]
        assert status == 0, "%d!: exit status %s: %s" % (n, status, err)
        assert out == str(factorial(n)), "%d!: '%s'" % (n, out[:60])


def fails(server, numbers=(20, 100), seconds=20):
    """It must not take what such a server gives for a result, and has to end."""
    for n in numbers:
        s = server()
        status, out, err = s.run(n, seconds)
        assert status is not None, err
        assert status != 0, "%d!: exit status 0, '%s'" % (n, out[:60])


rules = []


def rule(name, text):
    def add(f):
        rules.append((name, text, f))
        return f
    return add


@rule("C1", "what it sends is well-formed, and reserved bytes are 0")
def _():
    works(Server, (0, 1, 20, 45, 100, 150))


@rule("C2", "replies with other tags are skipped, and their descriptors closed")
def _():
    class Twice(Server):
        def reply(self, s, kind, tag, body=b"", reason=0, text=b"", fds=()):
            super().reply(s, kind, tag ^ 0x5555, b"", 0, b"an older one", fds)
            super().reply(s, kind, tag, body, reason, text, fds)
    works(Twice)


@rule("C3", "an older version is spoken if the client offers it, or else the client says no")
def _():
    for v in 0x0100, 0x0101, 0x0102, 0x0103:
        class Old(Server):
            version = v
        s = Old()
        status, out, err = s.run(20)
        assert not s.faults, s.faults[0]
        assert (status == 0) == (out == str(factorial(20))), "0x%x: status %s, '%s'" % (v, status, out)


@rule("C3", "nor is a function called of which nobody says what it takes")
def _():
    class Mute(Server):
        def request(self, s, kind, tag, body):
            if kind in (LIST, SIGNATURE):
                self.reply(s, kind, tag, reason=DENIED, text=b"not for you")
            else:
                super().request(s, kind, tag, body)
    s = Mute()
    status, out, err = s.run(20)
    assert (status == 0) == (out == str(factorial(20))), "status %s, '%s'" % (status, out)


@rule("C4", "no feature is used that wasn't acknowledged")
def _():
    class None_(Server):
        features = 0
    works(None_)


@rule("C5", "a region of another session isn't used")
def _():
    class Other(Server):
        session_shown = 0x99
    fails(Other)


@rule("C7", "positions come in order; a slot is used again when its answer was there")
def _():
    class Workers(Server):
        workers = 4
    works(Workers)


@rule("C8", "an answer counts by its seq, not by anything else in the slot")
def _():
    class Early(Server):
        def answer(self, p, slot, payload, reason=0, flags=0, length=None):
            struct.pack_into("<BBBB", self.inp, slot + 4, 1, 0, 0, 8)
            self.inp[slot + 8 : slot + 64] = b"\x07" * 56
            time.sleep(0.05)
            self.inp[slot + 8 : slot + 64] = bytes(56)
            super().answer(p, slot, payload, reason, flags, length)
    works(Early)


@rule("C9", "a service that sleeps is rung, and all of its workers are woken")
def _():
    class Sleepy(Server):
        workers = 4
        oversleeping = 0

        def idle(self, worker, slot, p):
            bell = u32(self.out, H_BELL)
            with lock:
                put32(self.inp, H_PARKED, u32(self.inp, H_PARKED) | 1 << worker)
            if u32(self.out, slot) != p + 1:
                # libc's syscall() says -1 for a time-out
                if futex(self.out, H_BELL, 0, bell, 3) < 0 and u32(self.out, slot) == p + 1 and u32(self.out, H_BELL) == bell:
                    self.check(False, "C9: worker %d has slept for 3 s beside a request" % worker)
            with lock:
                put32(self.inp, H_PARKED, u32(self.inp, H_PARKED) & ~(1 << worker))

    lock = threading.Lock()
    works(Sleepy)


@rule("C10", "the end of the instance, and of the server, is noticed while an answer is waited for")
def _():
    class Ends(Server):
        def result(self, p, slot, number, room):
            self.end(R_GONE)

    class Leaves(Server):
        def result(self, p, slot, number, room):
            for s in self.conns:
                s.shutdown(socket.SHUT_RDWR)

    class Silent(Ends):
        def end(self, reason):
            put32(self.inp, H_GONE, reason)  # and nobody rings
    fails(Ends)
    fails(Leaves)
    fails(Silent)


@rule("C11", "what was answered before the end is taken")
def _():
    class AnswersAndEnds(Server):
        def result(self, p, slot, number, room):
            if super().result(p, slot, number, room):
                self.end(R_GONE)

    class AnswersAndLeaves(AnswersAndEnds):
        def end(self, reason):
            super().end(reason)
            for s in self.conns:
                s.shutdown(socket.SHUT_RDWR)

        def closed(self):
            pass  # it was this side
    works(AnswersAndEnds)
    works(AnswersAndLeaves)


@rule("C12", "lengths that can't be are refused")
def _():
    class Long(Server):
        def result(self, p, slot, number, room):
            self.answer(p, slot, b"\x01" * 56, length=200)

    class Bulky(Server):
        def result(self, p, slot, number, room):
            self.answer(p, slot, struct.pack("<Q", 1 << 40), flags=BULK)
    fails(Long)
    fails(Bulky)


@rule("C13", "it has read what it wants before it closes or releases")
def _():
    works(Server, (20, 45, 100, 200))


for name, text, f in rules:
    try:
        f()
        print("ok %s - %s" % (name, text), flush=True)
    except AssertionError as e:
        failed.append(name)
        print("not ok %s - %s # %s" % (name, text, e), flush=True)
print("%d rules, %d broken%s" % (len(rules), len(failed), ": " + " ".join(failed) if failed else ""))
sys.exit(1 if failed else 0)
