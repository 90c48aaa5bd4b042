#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# qemu-shmem.py - two faults of QEMU 11.1 with VHOST_USER_PROTOCOL_F_SHMEM, shown without a guest
#
#	qemu-shmem.py stopped|reset [QEMU]	exit status 0: it lives, 1: it died of a signal, 2: neither could be tried
#
# stopped: the back-end asks for SHMEM_MAP while the vhost device is stopped, as it is while a VM is paused. dev->vdev is
#	NULL then, and the handlers of SHMEM_MAP and SHMEM_UNMAP follow it. The back-end can't know: QEMU may stop the
#	device between the sending and the reading of a request.
# reset: the driver resets the device while something is mapped, and starts it again. virtio_reset() frees the mapping's
#	MemoryRegion when the vhost device is stopped already, so that the vhost-user code's table of regions that the back-end
#	has taken (ADD_MEM_REG, with CONFIGURE_MEM_SLOTS) still has it; at the next start it is to be removed there, and
#	memory_region_from_host() finds nothing for its address.
#
# The back-end is a thread; the driver is written by hand through QEMU's qtest protocol.
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

FEATURES = 1 << 32 | 1 << 30  # VERSION_1, PROTOCOL_FEATURES
PROTOCOL = 1 << 0 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 10 | 1 << 15 | 1 << 22
WINDOW, PIECE = 64 << 20, 2 << 20


class Backend(threading.Thread):
    def __init__(self, path):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.channel = None  # for requests of our own
        self.regions = 0

    def run(self):
        sock = self.listener.accept()[0]
        while True:
            head, fds, _, _ = socket.recv_fds(sock, 12, 8)
            if len(head) < 12:
                return
            request, flags, size = struct.unpack('<III', head)
            body = sock.recv(size, socket.MSG_WAITALL) if size else b''
            answer = self.answer(request, body, fds)
            if answer is None and flags & 8:
                answer = struct.pack('<Q', 0)
            if answer is not None:
                sock.sendall(struct.pack('<III', request, 5, len(answer)) + answer)

    def answer(self, request, body, fds):
        numbers = {1: FEATURES, 15: PROTOCOL, 17: 2, 36: 64}  # queues, memory slots
        if request in numbers:
            return struct.pack('<Q', numbers[request])
        if request == 11:  # GET_VRING_BASE
            return body[:4] + struct.pack('<I', 0)
        if request == 24:  # GET_CONFIG
            return body
        if request == 44:  # GET_SHMEM_CONFIG
            return struct.pack('<IIQ', 1, 0, WINDOW) + bytes(8 * 255)
        if request == 21:
            self.channel = socket.socket(fileno=fds[0])
        if request == 37:
            self.regions += 1
        return None

    def map(self):
        fd = os.memfd_create('piece')
        os.ftruncate(fd, PIECE)
        message = struct.pack('<IIIB7xQQQQ', 9, 1 | 8, 40, 0, 0, 0, PIECE, 1)
        socket.send_fds(self.channel, [message], [fd])
        self.channel.settimeout(10)
        return self.channel.recv(20)


class Driver:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.file = self.sock.makefile('rw')

    def ask(self, *words):
        print(*words, file=self.file, flush=True)
        for line in self.file:
            if line.startswith('OK'):
                return int((line.split() + ['0'])[1], 0)
        raise EOFError

    def config(self, at, value=None):
        self.ask('outl', '0xcf8', hex(1 << 31 | 4 << 11 | at))
        return self.ask('inl', '0xcfc') if value is None else self.ask('outl', '0xcfc', hex(value))

    def find(self):
        """Give all BARs an address; that of the common configuration."""
        address, bars = 0xd0000000, {}
        for bar in range(6):
            self.config(0x10 + 4 * bar, 0xffffffff)
            size = -(self.config(0x10 + 4 * bar) & ~15) & 0xffffffff
            if bar - 1 in bars and self.config(0x10 + 4 * (bar - 1)) & 4:
                self.config(0x10 + 4 * bar, 0)  # the upper half of a 64-bit one
            elif size:
                address = address + size - 1 & ~(size - 1)
                bars[bar] = address
                self.config(0x10 + 4 * bar, address)
                address += size
        self.config(4, 6)
        cap = self.config(0x34) & 0xff
        while cap:
            word = self.config(cap)
            if word & 0xff == 9 and word >> 24 == 1:
                return bars[self.config(cap + 4) & 0xff] + self.config(cap + 8)
            cap = word >> 8 & 0xff
        raise EOFError

    def start(self, common):
        for status in (0, 1, 3):
            self.ask('writeb', hex(common + 20), status)
        self.ask('writel', hex(common + 8), 1)
        self.ask('writel', hex(common + 12), 1)
        self.ask('writeb', hex(common + 20), 11)
        for queue in range(2):
            self.ask('writew', hex(common + 22), queue)
            for at, offset in ((32, 0), (40, 0x2000), (48, 0x3000)):
                self.ask('writeq', hex(common + at), hex(0x100000 + queue * 0x10000 + offset))
            self.ask('writew', hex(common + 28), 1)
        self.ask('writeb', hex(common + 20), 15)


def reset(backend, folder):
    driver = Driver(folder + '/qtest')
    common = driver.find()
    driver.start(common)
    before = backend.regions
    backend.map()
    time.sleep(0.5)
    if backend.regions == before:
        sys.exit(2)  # the piece isn't in the guest's memory
    driver.ask('writeb', hex(common + 20), 0)
    time.sleep(1)  # it is freed by RCU
    driver.start(common)


def stopped(backend, folder):
    backend.map()


def main(how, qemu='qemu-system-x86_64'):
    with tempfile.TemporaryDirectory() as folder:
        backend = Backend(folder + '/socket')
        backend.start()
        vm = subprocess.Popen([qemu, '-nodefaults', '-display', 'none', '-accel', 'qtest', '-m', '128M',
            '-object', 'memory-backend-memfd,id=mem,size=128M,share=on', '-machine', 'q35,memory-backend=mem',
            '-qtest', 'unix:' + folder + '/qtest,server=on,wait=off', '-qtest-log', 'none',
            '-chardev', 'socket,id=c,path=' + folder + '/socket', '-device',
            'vhost-user-test-device-pci,chardev=c,virtio-id=26,num_vqs=2,vq_size=64,config_size=40,addr=4'])
        try:
            end = time.time() + 20
            while not (backend.channel and os.path.exists(folder + '/qtest')) and time.time() < end and vm.poll() is None:
                time.sleep(0.1)
            time.sleep(0.5)
            {'stopped': stopped, 'reset': reset}[how](backend, folder)
        except (EOFError, OSError):
            pass
        try:
            vm.wait(timeout=10)
        except subprocess.TimeoutExpired:
            vm.kill()
            vm.wait()
            print(f'{how}: QEMU lives')
            return 0
        print(f'{how}: QEMU ended with {vm.returncode}')
        return 1 if vm.returncode < 0 else 2


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
