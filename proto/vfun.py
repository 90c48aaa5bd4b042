# SPDX-License-Identifier: MIT
"""vfun.py - call functions on the host, from Python: one file, the standard library only, in a guest and on the host

	import vfun
	with vfun.open("sha256") as sha256:
		print(sha256(b"hello"))

Theory of operation: vfun-protocol(7); this is proto/client.c, control.c, path.c and channel.c in another language.
Control messages go through the share's control file, or vfund's socket; calls go through two regions of memory, mapped
where they can be (host, dax, ivshmem) or else read and written as files (copy). A path proves itself by an echo, as
there.

Words of the mapping are stored through memoryviews of words: the interpreter stores each at once, and in order on the
processors that vfun is for. A full barrier, where the protocol wants one, is the atomic operation in a lock. A guest
rings and sleeps by the instance's bell file; on the host that takes a system call that the standard library hasn't, so
that ctypes is used there, and only there.

A call that isn't wanted any more, since it timed out, was interrupted, or was forgotten, keeps its slot and its places in
the arenas until its answer is there, which may be late and writes to them. Then they are free again (Function._collect()).

What a function takes and gives is in its signature. Arrays are anything with a buffer (bytes, array.array, numpy), or
lists of numbers. Results are numpy arrays if the program has imported numpy, else memoryviews.
"""
import contextlib
import errno
import fcntl
import mmap
import os
import re
import select
import socket
import stat
import struct
import sys
import threading
import time
import weakref

if sys.byteorder != "little":
    raise ImportError("vfun is for little-endian machines")

VERSION, OLDEST = 0x0104, 0x0100
MAGIC = 0x6E756676
IN_MAGIC = 0x315F6E496E754676
BAR_MAGIC = 0x317261426E756676
IOC_CONTROL = 3 << 30 | 256 << 16 | ord("v") << 8 | 1
NEGOTIATE, ACTIVATE, RELEASE, STATUS, SIGNATURE, REPLY = 1, 2, 3, 5, 7, 0x8000
SET, GET, RST, ECHO = 1, 2, 3, 4
PATHS = {"auto": 0, "dax": 2, "copy": 4, "ivshmem": 8, "host": 1}
PAGE, LINE = 4096, 64
GONE, BELL, PARKED, CANCELS, CANCEL = 64, 128, 192, 204, 320  # struct vfun_hdr
FEATURE_CANCEL = 1
SPIN_NS = 50_000
REASONS = {
    64: "slot-command", 65: "slot-length", 66: "slot-flags", 67: "slot-range", 68: "arguments", 69: "result-size",
    70: "function", 71: "no-data", 72: "cut-off", 73: "gone", 74: "late", 75: "device",
    76: "cancelled", 77: "limit", 78: "slot-seq",
}
LOST, R_RESULT_SIZE = 14, 69
SHORTAGES = errno.EMFILE, errno.ENFILE, errno.ENOMEM


class Error(Exception):
    """A call or an instance that failed. `reason`: a code of vfun-protocol(7), 0 if it isn't the other side's word."""

    def __init__(self, text, reason=0):
        # What a terminal would obey rather than show: part of it is the other side's.
        super().__init__(re.sub("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]", "?", text))
        self.reason = reason


class Unmappable(Exception):
    """This path isn't to be had."""


# ---- signatures ----

FORMATS = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i8": "b", "i16": "h", "i32": "i", "i64": "q", "f32": "f",
           "f64": "d"}
ARG = re.compile(r"(\w+)\s+(\w+)\s*(?:\[([^]]*)\])?\s*(?:(\S*?)\.\.(\S*))?\s*(?:default\s+(\S+))?$")


def number(text):
    try:
        return int(text, 0)
    except ValueError:
        return float(text)


class Arg:
    """An argument or a result: an array if it has `dims`, else a scalar."""

    def __init__(self, text):
        m = ARG.match(text.strip())
        if text.strip() == "int":
            self.name, self.type, self.dims = "int", "int", None
            return
        if not m or m[2] not in FORMATS and m[2] != "hex":
            raise Error(f"a signature that makes no sense: '{text.strip()}'")
        self.name, self.type = m[1], m[2]
        self.dims = None if m[3] is None else [d.strip() for d in m[3].split(",")]
        self.low, self.high = number(m[4]) if m[4] else None, number(m[5]) if m[5] else None
        self.default = number(m[6]) if m[6] else None
        self.format = FORMATS.get(self.type, "B")
        self.size = struct.calcsize(self.format)

    def check(self, value):
        if self.low is not None and not value >= self.low or self.high is not None and not value <= self.high:
            low, high = ("" if x is None else x for x in (self.low, self.high))
            raise ValueError(f"{self.name}: {value} is not {low}..{high}")

    def word(self, value):
        """As 64 bits of a request."""
        if self.type[0] == "f":
            return struct.unpack("<Q", struct.pack("<d", value))[0]
        if isinstance(value, float):
            raise TypeError(f"{self.name}: {value} is not a whole number")
        value = int(value)
        bits = self.size * 8
        low, high = (-1 << bits - 1, (1 << bits - 1) - 1) if self.type[0] == "i" else (0, (1 << bits) - 1)
        if not low <= value <= high:
            raise ValueError(f"{self.name}: {value} doesn't fit {self.type}")
        return value & 0xFFFFFFFFFFFFFFFF


def split(text):
    """At commas that aren't in brackets."""
    return [t for t in re.split(r",(?![^\[]*\])", text) if t.strip()]


class Signature:
    def __init__(self, text):
        self.text = text
        self.align = (8, 8)
        m = re.match(r"\s*align\s+(\d+)\s+(\d+)\s*:", text)
        if m:
            self.align = (int(m[1]), int(m[2]))
            text = text[m.end():]
        commands, _, results = text.partition("->")
        self.commands = {}
        for part in commands.split(";"):
            m = re.match(r"\s*(set|get)\b(?!\s+[uif]\d+\b)", part)
            self.commands[SET if m and m[1] == "set" else GET] = [Arg(a) for a in split(part[m.end():] if m else part)]
        self.results = [Arg(a) for a in split(results)] if results.strip() != "nothing" else []


# ---- arrays: bytes in a shape ----

def numpy():
    return sys.modules.get("numpy")


def flatten(value):
    """Numbers of nested lists, and their shape."""
    if not isinstance(value, (list, tuple)):
        return [value], ()
    parts = [flatten(v) for v in value]
    shape = parts[0][1] if parts else ()
    if any(p[1] != shape for p in parts):
        raise ValueError("lists of unequal length")
    return [x for p in parts for x in p[0]], (len(value),) + shape


def as_bytes(arg, value):
    """Its bytes as a memoryview, and its shape, or None if it is just bytes."""
    if isinstance(value, (list, tuple)):
        numbers, shape = flatten(value)
        return memoryview(struct.pack(f"<{len(numbers)}{arg.format}", *numbers)), shape
    try:
        view = memoryview(value)
    except TypeError:
        raise TypeError(f"{arg.name}: {type(value).__name__} is not an array") from None
    kind = view.format.lstrip("<=@")
    if kind in ("l", "L"):  # 64 bits here
        kind = {"l": "q", "L": "Q"}[kind]
    if kind != arg.format and view.format != "B":
        raise TypeError(f"{arg.name}: an array of {arg.type} is wanted, not of '{view.format}'")
    shape = None if kind != arg.format or arg.format == "B" and view.ndim == 1 else view.shape
    if not view.c_contiguous:
        view = memoryview(view.tobytes())
    return (view.cast("B") if view.nbytes else memoryview(b"")), shape


def as_array(view, arg, shape):
    """The memory as an array of this type and shape; nothing is copied."""
    np = numpy()
    if np:
        return np.frombuffer(view, dtype="<" + arg.type[0] + str(arg.size)).reshape(shape)
    count = 1
    for d in shape:
        count *= d
    return view.cast(arg.format, shape) if count and len(shape) > 1 else view.cast(arg.format)


def up(n, align):
    return -(-n // align) * align


class Shapes:
    """What the dimensions' names stand for in one call."""

    def __init__(self, known):
        self.known = dict(known)

    def learn(self, arg, shape):
        if len(shape) == 1 and len(arg.dims) > 1:
            return self.learn_size(arg, shape[0])
        if len(shape) != len(arg.dims):
            raise ValueError(f"{arg.name}: {len(arg.dims)} dimensions are wanted, not {len(shape)}")
        for dim, n in zip(arg.dims, shape):
            want = int(dim) if dim.isdigit() else self.known.get(dim) if dim != "*" else None
            if want is not None and want != n:
                raise ValueError(f"{arg.name}: {n} is not its {dim}, which is {want}")
            self.known[dim if dim != "*" else arg] = n

    def learn_size(self, arg, elements):
        """Without a shape: the one dimension that isn't known follows from the rest."""
        known, free = 1, None
        for dim in arg.dims:
            n = int(dim) if dim.isdigit() else self.known.get(dim)
            if n is None and free is None:
                free = dim
            else:
                known *= n or 0
        if free is None:
            if elements != known:
                raise ValueError(f"{arg.name}: {elements} elements, not {known}")
        elif not known and elements or known and elements % known:
            raise ValueError(f"{arg.name}: {elements} elements are no multiple of {known}")
        else:
            self.known[free if free != "*" else arg] = elements // known if known else 0

    def of(self, arg):
        """None: not known."""
        shape = []
        for dim in arg.dims:
            n = int(dim) if dim.isdigit() else self.known.get(dim if dim != "*" else arg)
            if n is None:
                return None
            shape.append(n)
        return tuple(shape)


# ---- control messages ----

def run_folders(run):
    if run or os.environ.get("VFUN_RUN_DIR"):
        return [run or os.environ["VFUN_RUN_DIR"]]
    own = os.environ.get("XDG_RUNTIME_DIR")
    return ([own + "/vfun"] if own and os.geteuid() else []) + ["/run/vfun"]


class Control:
    """vfund's socket, or the share's control file."""

    def __init__(self, run, timeout):
        self.timeout = timeout
        self.tag = 0
        why = None
        for folder in run_folders(run):
            try:
                self._open(folder)
                self.run = folder
                return
            except OSError as e:
                if e.errno in SHORTAGES:
                    raise
                why = f"no vfund and no share at {folder} ({e.strerror}): start vfund, or mount the share there"
                if e.errno == errno.EROFS:
                    why = f"{folder} is read-only for this process: add ReadWritePaths={folder} to its systemd unit"
                    break
        raise Error(why)

    def _open(self, folder):
        name = folder + "/control"
        self.guest = not stat.S_ISSOCK(os.stat(name).st_mode)
        if self.guest:
            self.file = os.open(name, os.O_RDWR | os.O_CLOEXEC)
            return
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.socket.connect(name)
        except OSError:
            self.socket.close()
            raise
        self.file = self.socket.fileno()

    def ask(self, kind, body):
        """The reply's body and descriptors; a nack is an Error."""
        self.tag += 1
        msg = bytearray(struct.pack("<IHHIHH128s112x", MAGIC, kind, VERSION, self.tag, 0, 0, body))
        fds = []
        if self.guest:
            fcntl.ioctl(self.file, IOC_CONTROL, msg, True)
        else:
            msg, fds = self._exchange(msg)
        magic, what, _, _, reason, _ = struct.unpack_from("<IHHIHH", msg)
        if magic != MAGIC or what != kind | REPLY and not (what == REPLY and reason):
            raise Error("vfund's answer makes no sense")
        self.text = bytes(msg[144:]).split(b"\0")[0].decode(errors="replace")
        if reason:
            for fd in fds:
                os.close(fd)
            raise Error(self.text, reason)
        return bytes(msg[16:144]), fds

    def _exchange(self, msg):
        until = time.monotonic() + self.timeout
        self.socket.send(msg)
        while True:
            self.socket.settimeout(max(until - time.monotonic(), 0.001))
            try:
                reply, fds, flags, _ = socket.recv_fds(self.socket, 256, 2)
            except socket.timeout:
                raise Error("vfund did not answer in time", 11) from None
            if flags & socket.MSG_CTRUNC:
                for fd in fds:
                    os.close(fd)
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            if len(reply) != 256:
                raise Error("no answer from vfund: it is gone")
            tag, reason = struct.unpack_from("<IH", reply, 8)
            if tag == self.tag or not tag and reason:
                return reply, fds
            for fd in fds:
                os.close(fd)

    def close(self):
        if self.guest:
            os.close(self.file)
        else:
            self.socket.close()

    def signature(self, function):
        text, total = b"", 1
        while len(text) < total:
            body, _ = self.ask(SIGNATURE, struct.pack("<32sI", function.encode(), len(text)))
            total, = struct.unpack_from("<I", body)
            more = body[SIGNATURE_AT:SIGNATURE_AT + min(112, total - len(text))]
            if not more:
                break
            text += more
        return text.split(b"\0")[0].decode()


SIGNATURE_AT = 4


# ---- the mapping ----

class Mapped:
    """A region in memory: words at word offsets."""

    def __init__(self, fd, size, offset=0, write=False):
        try:
            self.map = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | (mmap.PROT_WRITE if write else 0),
                                 offset=offset)
        except (OSError, ValueError) as e:
            if getattr(e, "errno", 0) in SHORTAGES:
                raise
            raise Unmappable(f"the share's files can't be mapped ({e})") from None
        self.bytes = memoryview(self.map)
        self.u32 = self.bytes.cast("I")
        self.u64 = self.bytes.cast("Q")

    def load32(self, off):
        return self.u32[off >> 2]

    def store32(self, off, value):
        self.u32[off >> 2] = value

    def load(self, off, n):
        return bytes(self.bytes[off:off + n])

    def store(self, off, data):
        self.bytes[off:off + len(data)] = data

    def publish(self, off, line):
        """All but the first word, then that at once."""
        words = struct.unpack(f"<{len(line) // 8}Q", line)
        at = off >> 3
        for i in range(1, len(words)):
            self.u64[at + i] = words[i]
        self.u64[at] = words[0]

    def close(self):
        for view in (self.u32, self.u64, self.bytes):
            view.release()
        try:
            self.map.close()
        except BufferError:  # an array of the program's still lies in it: the memory goes when that does
            pass


class Files:
    """A region of path copy."""

    def __init__(self, name, flags):
        self.fd = os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECT)

    def load32(self, off):
        return struct.unpack("<I", self.load(off, 4))[0]

    def store32(self, off, value):
        self.store(off, struct.pack("<I", value))

    def load(self, off, n):
        data = b""
        while len(data) < n:
            more = os.pread(self.fd, n - len(data), off + len(data))
            if not more:
                raise OSError(errno.EIO, "the instance is gone")
            data += more
        return data

    def store(self, off, data):
        view = memoryview(data)
        while view.nbytes:
            n = os.pwrite(self.fd, view, off)
            view, off = view[n:], off + n

    def publish(self, off, line):
        """The seq last, by itself."""
        self.store(off + 4, line[4:])
        self.store(off, line[:4])

    def close(self):
        os.close(self.fd)


class Arena:
    """Places of bulk data in one direction. What is taken and given back is one step each, wherever a signal's exception
    hits: taken is what is held, and free all else."""

    def __init__(self, size):
        self.size = size
        self.held = {}  # offset: (offset, bytes)

    @property
    def free(self):
        gaps, end = [], 0
        for off, n in sorted(self.held.values()) + [(self.size, 0)]:
            if off > end:
                gaps.append((end, off - end))
            end = up(off + n, LINE)
        return gaps

    def take(self, n, places):
        """A place, which is entered in a list of (arena, place) as well."""
        align = PAGE if n >= PAGE else LINE
        for off, room in self.free:
            at = up(off, align)
            if at + n <= off + room:
                place = at, n
                places.append((self, place))
                if n:
                    self.held[at] = place
                return place
        raise ValueError(f"{n} bytes don't fit: the arena has {self.size}, see vfun.open(..., arena=)")

    def largest(self):
        """The most that take() would give now."""
        return max(((off + room) - up(off, PAGE) for off, room in self.free), default=0)

    def give(self, place):
        if self.held.get(place[0]) is place:
            del self.held[place[0]]


class HostBell:
    """Futexes, on the host: the C library's syscall(), which the standard library has only by ctypes."""

    WAIT, WAKE, NUMBER = 0, 1, {"x86_64": 202, "aarch64": 98}

    def __init__(self, out, inn):
        import ctypes
        self.c = ctypes
        self.call = ctypes.CDLL(None, use_errno=True).syscall
        self.number = self.NUMBER[os.uname().machine]
        self.out = out
        self.out_word = ctypes.c_uint32.from_buffer(out.map, BELL)
        # A read-only mapping has no from_buffer(): its address comes from the buffer itself.
        self.in_word = self._address(inn.map) + BELL

    def _address(self, buffer):
        c = self.c

        class PyBuffer(c.Structure):
            _fields_ = [("buf", c.c_void_p), ("obj", c.py_object), ("len", c.c_ssize_t), ("itemsize", c.c_ssize_t),
                        ("readonly", c.c_int), ("ndim", c.c_int), ("format", c.c_char_p), ("shape", c.c_void_p),
                        ("strides", c.c_void_p), ("suboffsets", c.c_void_p), ("internal", c.c_void_p)]
        view = PyBuffer()
        c.pythonapi.PyObject_GetBuffer(c.py_object(buffer), c.byref(view), 0)
        address = view.buf
        c.pythonapi.PyBuffer_Release(c.byref(view))
        return address

    def ring(self):
        self.out_word.value = self.out_word.value + 1 & 0xFFFFFFFF
        c = self.c
        self.call(c.c_long(self.number), c.byref(self.out_word), c.c_long(self.WAKE), c.c_long(0x7FFFFFFF), None, None,
                  c.c_long(0))

    def sleep(self, bell, seconds):
        c = self.c
        limit = (c.c_long * 2)(0, int(min(seconds, 0.1) * 1e9) if seconds < 0.1 else 99_999_999)
        self.call(c.c_long(self.number), c.c_void_p(self.in_word), c.c_long(self.WAIT), c.c_long(bell), limit, None,
                  c.c_long(0))

    def close(self):
        self.out_word = None


class GuestBell:
    """The instance's bell file."""

    def __init__(self, name):
        self.fd = os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)

    def ring(self):
        os.write(self.fd, b"!")

    def sleep(self, bell, seconds):
        try:
            os.read(self.fd, 8)
        except BlockingIOError:  # the share let us wait as long as it does
            time.sleep(0.0002)

    def close(self):
        os.close(self.fd)


def find_bar(bar):
    """The ivshmem device whose memory says so: a descriptor, or None."""
    base = "/sys/bus/pci/devices"
    for device in os.listdir(base) if os.path.isdir(base) else []:
        def value(name):
            with open_text(f"{base}/{device}/{name}") as f:
                return int(f.read(), 16)
        try:
            if value("vendor") != 0x1AF4 or value("device") != 0x1110:
                continue
            fd = os.open(f"{base}/{device}/resource2", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            page = mmap.mmap(fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ)
            head = struct.unpack_from("<QQQ", page)
            page.close()
            if head == (BAR_MAGIC, bar, os.fstat(fd).st_size):
                return fd
        except (OSError, ValueError):
            pass
        os.close(fd)
    return None


open_text = open  # this module has an open() of its own


# ---- an instance ----

class Request:
    """What a slot holds. `owner` is a weak reference to whoever will take its answer."""

    def __init__(self, seq, line, owner, places):
        self.seq, self.line, self.owner, self.places = seq, line, owner, places
        self.unwanted = False
        self.cancelled = False  # the service was told so

    @property
    def dropped(self):
        """Nobody will take its answer. Nothing has to be done when its owner is forgotten, which could be interrupted."""
        return self.unwanted or self.owner() is None


class Function:
    """One instance of a function. Call it; see vfun-python(3)."""

    def __init__(self, function, run, path, arena, room, slots, timeout, signature):
        if path not in PATHS:
            raise ValueError(f"there is no path '{path}'")
        self.name = function
        self.timeout = timeout
        self.closed = ""  # why it can't be called any more
        self.regions, self.fds, self.bar = [], [], None
        self.bell = self.instance = None
        self.barrier = threading.Lock()
        self.lock = threading.RLock()  # of all that follows: threads take turns
        self.scalars = {}  # the last set's
        self.areas = {}    # id of an array in the arena: the array, where it is
        self.control = Control(run, timeout)
        opened.add(self)
        try:
            self._obtain(path, arena, arena if room is None else room, slots)
            self._choose(path)
            self.signature = Signature(self._ask_signature() if signature is None else signature)
        except BaseException:
            self.close()
            raise
        self.inputs, self.rooms = Arena(self.arenas[0]), Arena(self.arenas[1])

    def _ask_signature(self):
        try:
            return self.control.signature(self.name)
        except Error as e:
            raise Error(f"{self.name}: its signature isn't to be had ({e}): give vfun.open(..., signature=)", e.reason) from None

    def _obtain(self, path, arena, room, slots):
        for tries in range(4):
            try:
                return self._activate(path, arena, room, slots)
            except Error as e:
                if e.reason != LOST or tries == 3:
                    raise

    def _activate(self, path, arena, room, slots):
        body, _ = self.control.ask(NEGOTIATE, struct.pack(
            "<32sHHBBHQQQ", self.name.encode()[:31], OLDEST, VERSION, 0, 0, slots, arena, room, FEATURE_CANCEL))
        self.features, = struct.unpack_from("<Q", body, 56)
        grant, out, inn, _, self.slots, _, _, _, _, _, self.paths, bar, _ = struct.unpack_from("<QQQHHBBBBIIQH", body)
        self.arenas = (out, inn)
        self.bar = None
        if self.control.guest and path in ("auto", "ivshmem") and self.paths & PATHS["ivshmem"] and not (
                path == "auto" and self.paths & PATHS["dax"]):
            self.bar = find_bar(bar)
        wanted = PATHS["ivshmem"] | (PATHS["copy"] if path == "auto" else 0) if self.bar is not None else 0
        body, self.fds = self.control.ask(ACTIVATE, struct.pack("<QI", grant, wanted))
        (self.instance, self.session, out_size, in_size, self.offered, folder, out_off, in_off) = struct.unpack_from(
            "<QQQQI4x56sQQ", body)
        self.folder = f"{self.control.run}/" + folder.split(b"\0")[0].decode()
        self.sizes, self.offsets = (out_size, in_size), (out_off, in_off)

    def _choose(self, path):
        if not self.control.guest and path in ("auto", "host"):
            order = ["host"]
        elif self.control.guest and path != "host":
            order = [path] if path != "auto" else ["ivshmem"] if self.bar is not None else ["dax"]
            order += ["copy"] if path == "auto" else []
        else:
            raise Error(f"path {path} is not for a program {'in a guest' if self.control.guest else 'on the host'}")
        why = []
        for name in order:
            try:
                getattr(self, "_use_" + name)()
                self.base = PAGE + up(self.slots * LINE, PAGE)
                self._prove(2.0 if name == "copy" else 1.0)
                self.path = name
                break
            except (Unmappable, OSError) as e:
                if getattr(e, "errno", 0) in SHORTAGES:
                    raise
                why.append(f"{name}: {e}")
                self._unmap()
        else:
            raise Error(f"{self.name}: no path works: " + "; ".join(why))
        if self.bar is not None:
            os.close(self.bar)
            self.bar = None

    def _use_host(self):
        fds, self.fds = self.fds, []
        try:
            if len(fds) != 2:
                raise Error("vfund's activation makes no sense")
            self.regions = [Mapped(fds[0], self.sizes[0], write=True)]
            self.regions.append(Mapped(fds[1], self.sizes[1]))
        finally:
            for fd in fds:
                os.close(fd)
        self.bell = HostBell(*self.regions)

    def _use_dax(self):
        self.bell = GuestBell(self.folder + "/bell")
        for name, flags, size in ("dataout", os.O_RDWR, self.sizes[0]), ("datain", os.O_RDONLY, self.sizes[1]):
            fd = os.open(f"{self.folder}/{name}", flags | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                self.regions.append(Mapped(fd, size, write=flags == os.O_RDWR))
            finally:
                os.close(fd)

    def _use_ivshmem(self):
        if self.bar is None or not self.offered & PATHS["ivshmem"]:
            raise Unmappable("this VM has no ivshmem memory for it, or this user may not look")
        self.bell = GuestBell(self.folder + "/bell")
        for i in 0, 1:
            self.regions.append(Mapped(self.bar, self.sizes[i], self.offsets[i], write=i == 0))

    def _use_copy(self):
        self.bell = GuestBell(self.folder + "/bell")
        self.regions = [Files(self.folder + "/dataout", os.O_RDWR)]
        self.regions.append(Files(self.folder + "/datain", os.O_RDONLY))

    def _prove(self, seconds):
        """The headers say what vfund said, and an echo comes back."""
        self.out, self.inn = self.regions
        magic, session, _, size, _, _, slots = struct.unpack_from("<QQQQHHI", self.inn.load(0, LINE))
        if (magic, session, size, slots) != (IN_MAGIC, self.session, self.sizes[1], self.slots):
            raise Unmappable("the mapping is not coherent with the host")
        self.next, self.unrung = 0, False
        self.flight = [None] * self.slots  # a Request, where there is one
        word = int.from_bytes(os.urandom(8), "little")
        try:
            reason, _, data = self._alone(ECHO, [self.session, self.instance, word, 1], seconds)
        except TimeoutError:
            raise Unmappable("the mapping is not coherent with the host: no echo") from None
        if reason or data != struct.pack("<QQQQ", self.session, self.instance, word, 1):
            raise Unmappable("a wrong echo")

    def _unmap(self):
        if self.bell:
            self.bell.close()
        for region in self.regions:
            region.close()
        self.bell, self.regions = None, []

    # slots

    def _usable(self):
        if self.closed:
            raise Error(f"{self.name}: {self.closed}")

    @contextlib.contextmanager
    def _turn(self, seconds):
        """This thread's turn."""
        self._usable()
        if not self.lock.acquire(timeout=max(seconds, 0)):
            raise TimeoutError(f"{self.name}: no answer in time: other threads use it")
        try:
            self._usable()
            yield
        except OSError as e:
            if e.errno not in (errno.EIO, errno.ENODEV, errno.ENOENT, errno.ESTALE):
                raise
            raise Error(f"{self.name}: the instance is gone: {e.strerror}", 73) from None
        finally:
            self.lock.release()

    def _submit(self, cmd, args, bulk, owner, places, until):
        self._finish()
        slot = self.next & self.slots - 1
        while self.flight[slot]:
            if not self._collect() and not self._outlast(until):
                raise Error("as many calls are in flight as there are slots: take a result first")
        words = list(bulk or ()) + args
        if len(words) > 7:
            raise ValueError(f"{self.name}: too many numbers for one call")
        head = (self.next + 1 & 0xFFFFFFFF) | cmd << 32 | (1 << 40 if bulk else 0) | len(words) * 8 << 48
        request = Request(self.next, struct.pack(f"<{1 + len(words)}Q", head, *words), owner, places)
        self.flight[slot] = request
        self._finish()
        return request

    def _finish(self):
        """Publish what stands in the next slot. Who was interrupted in here has it done by the next one: it may be done
        twice."""
        slot = self.next & self.slots - 1
        request = self.flight[slot]
        if request and request.seq == self.next:
            self.unrung = True
            self.out.publish(PAGE + slot * LINE, request.line)
            self.next = self.next + 1 & 0xFFFFFFFF
        if self.unrung:
            self._ring()
            self.unrung = False

    def _free(self, request):
        for arena, place in request.places:
            arena.give(place)
        self.flight[request.seq & self.slots - 1] = None

    def _offset(self, request):
        return PAGE + (request.seq & self.slots - 1) * LINE

    def _dropped(self):
        return [r for r in self.flight if r and r.dropped]

    def _collect(self):
        """Free what dropped requests hold, if their answers are there. True if there was one."""
        found = False
        for request in self._dropped():
            if self.inn.load32(self._offset(request)) == request.seq + 1 & 0xFFFFFFFF:
                self._free(request)
                found = True
            elif not request.cancelled:
                self._cancel(request)
        return found

    def _outlast(self, until):
        """Wait for the answer of a dropped request, and free what it holds. False: there is none."""
        dropped = self._dropped()
        if dropped:
            first = min(dropped, key=lambda r: r.seq - self.next & 0xFFFFFFFF)
            self._cancel(first)
            self._wait(first, until - time.monotonic())
            self._free(first)
        return bool(dropped)

    def _cancel(self, request):
        request.unwanted = True
        if request.cancelled or not self.features & FEATURE_CANCEL:
            return
        request.cancelled = True
        self.out.store32(CANCEL + (request.seq & self.slots - 1) * 4, request.seq + 1 & 0xFFFFFFFF)
        self.out.store32(CANCELS, 1)

    def _drop(self, request):
        """Nobody wants its answer any more."""
        request.unwanted = True
        if not self.closed and self.flight[request.seq & self.slots - 1] is request:
            try:
                self._cancel(request)
            except OSError:  # it is gone
                pass

    def _alone(self, cmd, args, seconds):
        """A request without arrays, and its answer."""
        with self._turn(seconds):
            request = self._submit(cmd, args, None, lambda: self, (), time.monotonic() + seconds)
            try:
                answer = self._answer(request, seconds)
            except BaseException:
                self._drop(request)
                raise
            self._free(request)
            return answer

    def _fence(self):
        with self.barrier:
            pass

    def _ring(self):
        self._fence()
        if self.inn.load32(PARKED):
            self.bell.ring()

    def _lasts(self):
        """Memory that was taken away reads as zeros, or as ones."""
        if struct.unpack("<Q", self.inn.load(8, 8))[0] != self.session:
            raise Error("the instance is gone: its memory was taken away", 73)

    def _why(self):
        """Why the service has ended, as vfund says; "" if it doesn't."""
        position, until = 0, time.monotonic() + 0.2
        try:
            while time.monotonic() < until:
                body, _ = self.control.ask(STATUS, struct.pack("<Q", position))
                position, instance = struct.unpack_from("<QQ", body)
                if instance == self.instance and self.control.text:
                    return ": " + re.sub("^the service of .* ended: ", "", self.control.text)
                if instance == self.instance:  # it will be told in a moment
                    position = 0
                    time.sleep(0.005)
        except (Error, OSError):
            pass
        return ""

    def _gone(self):
        reason = self.inn.load32(GONE)
        if reason:
            raise Error({72: "the service has cut this client off: too many bad requests",
                         74: "the call took longer than vfun.conf allows",
                         75: "the device failed"}.get(reason) or "the service has ended" + self._why(), reason)
        self._lasts()
        if not self.control.guest:
            poll = select.poll()
            poll.register(self.control.file, 0)
            if poll.poll(0):
                raise Error("vfund is gone", 73)

    def _wait(self, request, seconds):
        """Spin, then sleep: announce it, look again, sleep."""
        start = time.monotonic()
        off, seq = self._offset(request), request.seq + 1 & 0xFFFFFFFF
        try:
            self._finish()
        except OSError:  # there is nobody to ring, but perhaps an answer
            if self.inn.load32(off) != seq:
                raise
        if self.path_spins():
            words, at = self.inn.u32, off >> 2
            until = time.perf_counter_ns() + SPIN_NS
            while True:
                for _ in range(64):
                    if words[at] == seq:
                        return
                if time.perf_counter_ns() > until:
                    break
        while self.inn.load32(off) != seq:
            try:
                self._gone()
            except Error:
                if self.inn.load32(off) == seq:  # it was answered before the end
                    return
                raise
            left = start + seconds - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{self.name}: no answer in time")
            bell = self.inn.load32(BELL)
            self.out.store32(PARKED, 1)
            try:
                self._fence()
                if self.inn.load32(off) != seq:
                    self.bell.sleep(bell, left)
            finally:
                self.out.store32(PARKED, 0)

    def path_spins(self):
        return isinstance(self.inn, Mapped)

    def _answer(self, request, seconds):
        """reason, the length of a bulk result or None, inline bytes; the request stays where it is."""
        self._wait(request, seconds)
        line = self.inn.load(self._offset(request), LINE)
        seq, _, flags, reason, n = struct.unpack_from("<IBBBB", line)
        if seq != request.seq + 1 & 0xFFFFFFFF:
            self._lasts()
            raise Error("an answer has vanished")
        if n > 56 or flags & 1 and n < 8:
            raise Error("the service's answer breaks the protocol")
        return reason, struct.unpack_from("<Q", line, 8)[0] if flags & 1 else None, line[8:8 + n]

    def _load(self, off, n):
        """Bytes of a result in datain's arena."""
        data = self.inn.load(self.base + off, n)
        self._lasts()
        return data

    # calls

    def __call__(self, *args, out=None, timeout=None, **named):
        """Compute: the result, or a tuple of them."""
        return self._whole(GET, args, named, out, timeout)

    def set(self, *args, timeout=None, **named):
        """Hand arguments over, for a function that keeps some."""
        return self._whole(SET, args, named, None, timeout)

    def submit(self, *args, out=None, **named):
        """As a call, but without waiting: a Call, whose result() is the result."""
        with self._turn(self.timeout):
            return self._begin(Call(self, GET, out), args, named, time.monotonic() + self.timeout)

    def _whole(self, cmd, args, named, out, timeout):
        """A call, of which nothing stays behind when it fails."""
        until = time.monotonic() + (self.timeout if timeout is None else timeout)
        with self._turn(until - time.monotonic()):
            call = Call(self, cmd, out)
            try:
                self._begin(call, args, named, until)
                return call.result(until - time.monotonic())
            finally:
                call.cancel()

    def reset(self, timeout=None):
        """Forget what earlier calls left behind."""
        reason, _, data = self._alone(RST, [], self.timeout if timeout is None else timeout)
        if reason:
            raise failed(self, reason, data)
        self.scalars = {}

    def _bind(self, cmd, args, named):
        """The arguments of the signature by name."""
        wanted = self.signature.commands.get(cmd)
        if wanted is None:
            raise TypeError(f"{self.name} has no set")
        if len(args) > len(wanted):
            raise TypeError(f"{self.name} takes {len(wanted)} arguments, not {len(args)}")
        given = dict(zip((a.name for a in wanted), args))
        for name, value in named.items():
            if name in given or name not in (a.name for a in wanted):
                raise TypeError(f"{self.name}: {name} is {'there twice' if name in given else 'not an argument'}")
            given[name] = value
        return wanted, given

    def _begin(self, call, args, named, until):
        wanted, given = self._bind(call.cmd, args, named)
        shapes = Shapes(self.scalars)
        for a in wanted:
            if a.dims is None and a.name in given:
                shapes.known[a.name] = given[a.name]
            elif a.dims is None:
                shapes.known.pop(a.name, None)
        views = []
        for a in wanted:
            if a.dims is not None:
                if a.name not in given:
                    raise TypeError(f"{self.name}: {a.name} is missing")
                view, shape = as_bytes(a, given[a.name])
                if view.nbytes % a.size:
                    raise ValueError(f"{a.name}: {view.nbytes} bytes are no array of {a.type}")
                if shape is None:
                    shapes.learn_size(a, view.nbytes // a.size)
                else:
                    shapes.learn(a, shape)
                views.append(view)
        words = []
        for a in wanted:
            if a.dims is None:
                value = given.get(a.name, shapes.known.get(a.name, a.default))
                if value is None:
                    raise TypeError(f"{self.name}: {a.name} is missing")
                a.check(value)
                words.append(a.word(value))
                shapes.known[a.name] = value
        arrays = [a for a in wanted if a.dims is not None]
        call.shapes = shapes
        call.scalars = {a.name: shapes.known[a.name] for a in wanted if a.dims is None}
        call.begin(words, arrays, [given[a.name] for a in arrays], views, until)
        return call

    def _place(self, arena, n, until, places):
        """Room in an arena, if need be that which dropped requests hold."""
        while True:
            try:
                return arena.take(n, places)
            except ValueError:
                if not self._collect() and not self._outlast(until):
                    raise

    def input(self, **shapes):
        """Arrays in the arena for the function's inputs, by name and shape: what is passed on as it is isn't copied."""
        args = [a for c in self.signature.commands.values() for a in c if a.name in shapes]
        return self._area(args, shapes, self.inputs, self.out, self.signature.align[0])

    def room(self, **shapes):
        """The same for results: pass it as out=."""
        args = [a for a in self.signature.results if a.name in shapes]
        return self._area(args, shapes, self.rooms, self.inn, self.signature.align[1])

    def _area(self, args, shapes, arena, region, align):
        if len(args) != len(shapes) or any(a.dims is None for a in args) or not args:
            raise TypeError(f"{self.name}: there are no such arrays: {', '.join(shapes)}")
        self._usable()
        if not isinstance(region, Mapped):
            raise Error(f"path {self.path} has no arrays in the arena")
        places, at = [], 0
        for a in args:
            shape = shapes[a.name] if isinstance(shapes[a.name], (tuple, list)) else (shapes[a.name],)
            n = a.size
            for d in shape:
                n *= d
            at = up(at, align)
            places.append((at, n, a, tuple(shape)))
            at += n
        with self._turn(self.timeout):
            base, _ = self._place(arena, at, time.monotonic() + self.timeout, [])
        arrays = []
        for off, n, a, shape in places:
            view = region.bytes[self.base + base + off:self.base + base + off + n]
            array = as_array(view, a, shape)
            self.areas[id(array)] = (array, base + off, n)
            arrays.append(array)
        return arrays[0] if len(arrays) == 1 else tuple(arrays)

    def close(self):
        """Give the instance back. Arrays in its arena are no use after that."""
        if self.closed:
            return
        self._leave("it was closed")
        try:
            if self.instance:
                self.control.ask(RELEASE, struct.pack("<Q", self.instance))
        except (Error, OSError):
            pass  # it is gone already, which is what was wanted
        finally:
            self.control.close()

    def _leave(self, why):
        """Whatever this process has of it, but for the connection."""
        self.closed = why
        opened.discard(self)
        self.areas = {}
        fds, self.fds = self.fds, []
        for fd in fds + ([] if self.bar is None else [self.bar]):
            os.close(fd)
        self.bar = None
        self._unmap()

    def _inherited(self):
        """In a child, after fork(): the instance is the parent's, and not ours to release."""
        self._leave("this instance is the parent process's: open one after fork()")
        self.control.close()

    def __reduce__(self):
        raise TypeError(f"{self.name}: an instance is one process's: open one there")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


opened = weakref.WeakSet()


def inherited():
    for f in list(opened):
        f._inherited()


os.register_at_fork(after_in_child=inherited)


def failed(f, reason, data):
    why = data.decode(errors="replace") if reason == 68 and data else REASONS.get(reason, f"reason {reason}")
    if reason == R_RESULT_SIZE and len(data) >= 8:
        need, = struct.unpack_from("<Q", data)
        why = f"the result needs {need} bytes" if need else "the result is longer than its room"
        why += ", see vfun.open(..., room=)"
    return Error(f"{f.name}: {why}", reason)


class Call:
    """A call under way."""

    def __init__(self, f, cmd, out):
        self.f, self.cmd, self.out = f, cmd, out
        self.request = None
        self.places = []  # to be given back: (arena, place)
        self.until = 0
        self.done = False

    def begin(self, words, arrays, values, views, until):
        """Submit it."""
        f, self.until = self.f, until
        try:
            bulk = self._bulk(arrays, values, views, len(words))
            self.request = f._submit(self.cmd, words, bulk, weakref.ref(self), self.places, until)
        except BaseException:
            self.cancel()
            raise

    def _bulk(self, arrays, values, views, nargs):
        f = self.f
        in_off, in_len = self._lay(values, views) if arrays else (0, 0)
        need = self._need() if self.cmd == GET else 0
        # A late answer must not get into a room of any length, or one that is used again.
        while f._dropped() and (need is None or self.out is not None) and (f._collect() or f._outlast(self.until)):
            pass
        if need is None and nargs <= 3:
            need = f.rooms.largest()
        if self.cmd == GET and self.out is not None:
            first = self.out[0] if isinstance(self.out, tuple) else self.out
            if id(first) not in f.areas:
                raise TypeError("out: not an array of room()")
            self.room = f.areas[id(first)][1], need
        elif need:
            self.room = self._take(f.rooms, need)
        else:
            self.room = 0, 0
        return (in_off, in_len, *self.room) if arrays or self.room[1] else None

    def _take(self, arena, n):
        return self.f._place(arena, n, self.until, self.places)

    def _lay(self, values, views):
        """The inputs one behind the other: where they are, if they are there already."""
        f, at, offsets = self.f, 0, []
        for v in views:
            at = up(at, f.signature.align[0])
            offsets.append(at)
            at += v.nbytes
        known = [f.areas.get(id(v)) for v in values]
        if all(known) and all(k[0] is v and k[1] == known[0][1] + o for k, v, o in zip(known, values, offsets)):
            return known[0][1], at
        place = self._take(f.inputs, at)
        for v, o in zip(views, offsets):
            f.out.store(f.base + place[0] + o, v)
        return place[0], at

    def _layout(self):
        """Each result, its offset and bytes; None from the first of any length on."""
        at, laid = 0, []
        for a in self.f.signature.results:
            shape = () if a.dims is None else self.shapes.of(a)
            at = None if at is None else up(at, self.f.signature.align[1])
            n = None if shape is None or a.type == "int" or a.type == "hex" and a.dims is None else a.size
            for d in shape or ():
                n = None if n is None else n * int(d)
            laid.append((a, shape, at, n))
            at = None if at is None or n is None else at + n
        return laid, at

    def _need(self):
        return self._layout()[1]

    def result(self, timeout=None):
        """Wait for it; once. After a time-out it may be waited for again."""
        f = self.f
        seconds = f.timeout if timeout is None else timeout
        with f._turn(seconds):
            if self.done:
                raise Error("this result has been taken")
            reason, bulk, data = f._answer(self.request, seconds)
            try:
                return self._taken(reason, bulk, data)
            finally:
                f._free(self.request)
                self.done = True

    def _taken(self, reason, bulk, data):
        f = self.f
        if reason:
            raise failed(f, reason, data)
        if self.cmd != GET:
            f.scalars = self.scalars
            return None
        if bulk is not None and bulk > self.room[1]:
            raise Error("the service's answer breaks the protocol")
        if self.out is not None and bulk is not None:
            f._lasts()
            return self.out
        return self._results(data if bulk is None else f._load(self.room[0], bulk))

    def _held(self):
        """The request, if there is one: who was interrupted while it was submitted hasn't been told."""
        return self.request or next((r for r in self.f.flight if r and r.places is self.places), None)

    def cancel(self):
        """Its result isn't wanted any more."""
        if self.done:
            return
        request = self._held()
        if request:
            self.f._drop(request)
        else:
            for arena, place in self.places:
                arena.give(place)
        self.done = True

    def _results(self, data):
        values = []
        for a, shape, at, n in self._layout()[0]:
            piece = memoryview(bytearray(data[at:] if n is None else data[at:at + n]))
            if n is not None and len(piece) != n:
                raise Error(f"{self.f.name}: a result of {len(data)} bytes isn't what its signature says")
            if a.type == "int":
                values.append(int.from_bytes(piece, "little"))
            elif a.type == "hex":
                values.append(piece.hex())
            elif a.dims is None:
                values.append(piece.cast(a.format)[0])
            else:
                values.append(as_array(piece, a, shape if shape is not None else (len(piece) // a.size,)))
        return values[0] if len(values) == 1 else tuple(values) or None


def open(function, *, run=None, path="auto", arena=1 << 20, room=None, slots=0, timeout=10.0, signature=None):
    """An instance of a function: something to call.

    arena, room: bytes for the inputs and results of all calls in flight; room: as arena. slots: calls in flight.
    timeout: seconds, of each step. signature: where vfund is too old to tell it.
    """
    return Function(function, run, path, arena, room, slots, timeout, signature)
