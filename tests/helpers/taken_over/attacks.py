"""What a guest that has taken its worker over would try; each attack by its name."""

from tests.helpers.taken_over.calls import NUMBERS, WITH_ARGUMENTS

ATTACKS = (
    f"REFUSED, NUMBERS = {list(NUMBERS)!r}, {NUMBERS | WITH_ARGUMENTS!r}\n"
    + r"""
victims = facts["victims"]
def nr(name):
    return NUMBERS[name][("x86_64", "aarch64").index(os.uname().machine)]

def attempt(name, attack):
    if any(word in name for word in facts["skip"]):
        return
    try:
        result = attack()
        said[name] = "worked" if result is None else f"worked: {result!r}"[:80]
    except OSError as error:
        said[name] = errno.errorcode.get(error.errno, str(error))
    except Exception as error:
        said[name] = type(error).__name__

class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

def read_memory(pid):
    here = ctypes.create_string_buffer(8)
    ours, theirs = Part(ctypes.addressof(here), 8), Part(facts["address"], 8)
    call(nr("process_vm_readv"), pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)

def unix(kind, path):
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.connect(path)

def signal_by_the_kernel(pid):
    fd = worker._fds.vm
    fcntl.fcntl(fd, fcntl.F_SETOWN, pid)
    fcntl.fcntl(fd, 10, signal.SIGKILL)  # F_SETSIG
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)

def bomb():
    for _ in range(100):
        if os.fork() == 0:
            os._exit(0)

def threads():
    threading.Thread(target=int).start()

def descriptors():
    made = []
    try:
        for _ in range(100_000):
            made.append(os.dup(0))
    finally:
        for each in made:
            os.close(each)

def memory():
    kept = [mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(16)]
    return len(kept)

def executable():
    mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)

def shared_memory():
    mmap.mmap(-1, 1 << 30)

for label, pid in victims.items():
    attempt(f"kill {label}", lambda: os.kill(pid, signal.SIGKILL))
    attempt(f"stop {label}", lambda: call(nr("tgkill"), pid, pid, signal.SIGSTOP))
    attempt(f"trace {label}", lambda: call(nr("ptrace"), 16, pid, 0, 0))
    attempt(f"read memory of {label}", lambda: read_memory(pid))
    attempt(f"open memory of {label}", lambda: os.open(f"/proc/{pid}/mem", os.O_RDWR))
    attempt(f"list descriptors of {label}", lambda: os.listdir(f"/proc/{pid}/fd"))
    attempt(f"pidfd of {label}", lambda: os.pidfd_open(pid))
    attempt(f"take a descriptor of {label}", lambda: call(nr("pidfd_getfd"), 3, 0, 0))
    attempt(f"SIGKILL by the kernel to {label}", lambda: signal_by_the_kernel(pid))
    attempt(f"priority of {label}", lambda: os.setpriority(os.PRIO_PROCESS, pid, 10))
    attempt(f"limits of {label}", lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (4, 4)))
attempt("kill everybody", lambda: os.kill(-1, signal.SIGKILL))
attempt("read a file", lambda: os.open("/etc/passwd", os.O_RDONLY))
attempt("write a file", lambda: os.open(facts["directory"] + "/made", os.O_WRONLY | os.O_CREAT, 0o600))
attempt("remove a file", lambda: os.unlink(facts["directory"] + "/run/supervisor.lock"))
attempt("list a directory", lambda: os.listdir("/"))
attempt("change root", lambda: os.chroot("."))
attempt("mount", lambda: call(nr("mount"), 0, 0, 0, 0, 0))
attempt("user namespace", lambda: call(nr("unshare"), 0x10000000))
attempt("become root", lambda: os.setuid(0))
attempt("program", lambda: os.execv("/bin/true", ["true"]))
attempt("fork bomb", bomb)
attempt("threads", threads)
attempt("descriptors", descriptors)
attempt("16 GiB", memory)
attempt("memory without a limit", shared_memory)
attempt("executable memory", executable)
attempt("memfd", lambda: os.memfd_create("x"))
attempt("more limits", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20)))
attempt("io_uring", lambda: call(nr("io_uring_setup"), 8, 0))
attempt("bpf", lambda: call(nr("bpf"), 0, 0, 0))
attempt("keyring", lambda: call(nr("keyctl"), 0, -3, 1))
for family in ("INET", "INET6", "NETLINK", "PACKET", "VSOCK", "UNIX"):
    kind = socket.SOCK_RAW if family in ("NETLINK", "PACKET") else socket.SOCK_STREAM
    attempt(f"a socket of {family}", lambda: socket.socket(getattr(socket, "AF_" + family), kind).close())
attempt("the console", lambda: unix(socket.SOCK_STREAM, facts["directory"] + "/run/console.sock"))
for pid in victims.values():
    door = f"{facts['directory']}/run/{pid}.channel"
    attempt(f"the door of {pid}", lambda: unix(socket.SOCK_SEQPACKET, door))
vm = socket.socket(fileno=os.dup(worker._fds.vm))  # of datagrams: it can name its destination
attempt("a socket by its name", lambda: vm.sendmsg([b"x" * 60], [], 0, facts["datagram"]))
attempt("a socket by its name, at once", lambda: vm.sendto(b"x" * 60, facts["datagram"]))
"""
)
"""Every one must fail if the named parts are in force, even if the kernel lacks all others."""

ONE_BY_ONE = r"""
for name in REFUSED:
    attempt("call of " + name, lambda: call(nr(name), 0, 0, 0, 0, 0, 0))
"""
"""Every system call that reaches out of a worker; none gets as far as its arguments."""

WORKER_ATTACKS = r"""
def anonymous(size, prot=3, flags=0):
    mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | flags, prot=prot).close()

def readable():
    here = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    call(nr("mprotect"), ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(here))), 4096, 1)

def merged():
    here = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    here.madvise(12)  # MADV_MERGEABLE

def flags_of(fd, flags):
    fcntl.fcntl(fd, fcntl.F_SETFL, flags)

own = worker._channel._channel._sock
bell = worker._fds.flood_doorbell
word = ctypes.c_uint32()
attempt("page tables", lambda: anonymous(1 << 36, prot=mmap.PROT_READ))
attempt("page tables, in two steps", readable)
attempt("a stack of 16 GiB", lambda: anonymous(1 << 34, flags=0x100))
attempt("huge pages", lambda: anonymous(1 << 21, flags=0x40000))
attempt("pages merged with those of others", merged)
attempt("another epoll instance", select.epoll)
attempt("another bell", lambda: os.eventfd(0))
attempt("a lock with priorities", lambda: call(nr("futex"), ctypes.byref(word), 6, 0, 0, 0, 0))
attempt("a pidfd of the supervisor from its socket", lambda: own.getsockopt(socket.SOL_SOCKET, 77, 4))
attempt("another protocol on a socket", lambda: own.setsockopt(socket.IPPROTO_TCP, 31, b"tls"))
attempt("a filter on a socket", lambda: own.setsockopt(socket.SOL_SOCKET, 26, bytes(16)))
attempt("more buffer", lambda: own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20))
attempt("a bell that blocks", lambda: flags_of(bell, 0))
attempt("a bell that blocks, by ioctl", lambda: fcntl.ioctl(bell, 0x5421, struct.pack("i", 0)))
attempt("signals from a socket", lambda: flags_of(own.fileno(), os.O_NONBLOCK | os.O_ASYNC))
for fd in worker._fds:
    attempt(f"the size of {fd}", lambda: call(nr("ftruncate"), fd, 0))
    attempt(f"a hole in {fd}", lambda: call(nr("fallocate"), fd, 3, 0, 4096))
"""
"""What only a worker would try."""

HEAR_BELLS = r"""
test.bells = [worker._fds.flood_doorbell]
hear = worker._links.receive
def receive(message, descriptors, now):
    if isinstance(message, messages.RingTx):
        test.bells.append(os.dup(descriptors[2]))
    hear(message, descriptors, now)
worker._links.receive = receive
"""
"""Keep every bell that comes."""

ABUSE_BELLS = r"""
end, said["turns"] = time.monotonic() + facts["seconds"], 0
while time.monotonic() < end:
    said["turns"] += 1
    for bell in test.bells:
        for abuse in facts["abuses"]:
            try:
                if abuse == "empty":
                    os.eventfd_read(bell)
                elif abuse == "fill":
                    for shift in range(63, -1, -1):
                        os.eventfd_write(bell, 1 << shift)
                else:
                    os.eventfd_write(bell, 1)
            except BlockingIOError:
                pass
said["bells"] = len(test.bells)
"""
"""Fill bells, empty them, or ring them, for some time."""

GATEWAY_ATTACKS = r"""
def bind():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))

def listen():
    with socket.socket() as sock:
        sock.listen()

def connect():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", 9))

attempt("bind a TCP port", bind)
attempt("listen", listen)
attempt("connect to the host", connect)
attempt("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 255).close())
attempt("another network", lambda: call(nr("setns"), os.open("/proc/1/ns/net", os.O_RDONLY), 0))
attempt("home", lambda: os.listdir(os.path.expanduser("~")))
attempt("kill its child", lambda: os.kill(os.getpid() + 1, signal.SIGKILL))
"""
"""What a gateway that was taken over would try besides."""

BESIDE_A_GATEWAY = r"""
def api(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.send(b"GET /leases HTTP/1.0\r\n\r\n")
        return sock.recv(100)

def forward():
    socket.create_connection(("127.0.0.1", facts["forward"])).close()

def enter(kind, pid):
    call(nr("setns"), os.open("/proc/%d/ns/%s" % (pid, kind), os.O_RDONLY), 0)

def packets():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()

attempt("the API", lambda: api(facts["services"]))
attempt("the socket of a forward", lambda: api(facts["socket"]))
attempt("a forward", forward)
attempt("packets of the network", packets)
for victim, pid in victims.items():
    attempt("the network of " + victim, lambda: enter("net", pid))
    attempt("the users of " + victim, lambda: enter("user", pid))
"""
"""What a worker would try besides where there is a gateway."""

MESSAGES = r"""
import random
chance = random.Random(facts["seed"])
sock = worker._channel._channel._sock
from forwarder import messages, wire
from forwarder.names import Cell, Policy, PortRecord
record = PortRecord(facts["port"], facts["epoch"], facts["epoch"], "victim", "qemu", Policy())
good = [
    messages.Goodbye("the VM left"), messages.Hello(), messages.Note("x"), messages.SnapshotRequest(),
    messages.WantRing(facts["port"], facts["epoch"]), messages.WantFloods(((facts["port"], facts["epoch"]),)),
    messages.RingSealed(facts["port"], facts["epoch"]), messages.RingIdle(facts["port"], facts["epoch"]),
    messages.FloodMoved(), messages.FloodTx(), messages.FloodRx(facts["port"], facts["epoch"]),
    messages.Ready(5, Cell((), 0)), messages.Claim(5, Cell((), 0), record), messages.Drain(),
    messages.Beat(1, 1, 1000, 1000), messages.Command("stop", {}),
    messages.Update(1, 1, (messages.Change("leave", record),), ()),
]
encoded = [wire.encode(message) for message in good if type(message) is not messages.Goodbye]
encoded.append(b"\x94\x06\xa7Goodbye" + bytes([facts["port"], facts["epoch"] & 127]) + b"\xa1x")  # of a port
sent = 0
for number in range(facts["count"]):
    data = bytearray(chance.choice(encoded))
    for _ in range(chance.randrange(4) if number % 2 else 0):
        data[chance.randrange(len(data))] = chance.randrange(256)
    fds = chance.choices((0, sock.fileno(), *worker._fds), k=chance.choice((0, 0, 1, 2, 3, 5, 7)))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    try:
        sock.sendmsg([bytes(data)], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        sent += 1
    except BlockingIOError:
        pass
    except OSError as error:
        said["error"] = str(error)
        break
said["sent"] = sent
"""
"""Messages over the worker's own channel: of every kind, forged, replayed, garbled, with descriptors."""

KEEP = r"""
test.kept = {}
old = worker._links.receive
def receive(message, descriptors, now):
    if isinstance(message, messages.Floods):
        ports = [port for port, _ in message.ports]
    elif isinstance(message, messages.Update):
        ports = [port for port, _ in message.floods]
    elif isinstance(message, (messages.FloodRx, messages.RingRx)):
        ports = [message.port]
    else:
        ports = []
    for port, descriptor in zip(ports, descriptors):
        size = os.fstat(descriptor).st_size
        kept = test.kept.setdefault(port, [])
        kept.append(mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ))
    old(message, descriptors, now)
worker._links.receive = receive
"""
"""Map every ring that comes once more, and never unmap it."""

LISTEN = r"""
said["kept"] = {port: len(rings) for port, rings in test.kept.items()}
said["heard"] = [port for port, rings in test.kept.items() for ring in rings if ring.find(facts["mark"]) >= 0]
"""
"""Look for a mark in all the rings that were kept."""

KEEP_RESERVED = r"""
test.reserved = {}
hear_updates = worker._links.receive
def receive_updates(message, descriptors, now):
    if isinstance(message, messages.Update):
        names_of = {change.record.port: change.record.name for change in message.changes}
        for (port, epoch), descriptor in zip(message.floods, descriptors):
            if names_of.get(port) == "":
                test.reserved[port] = epoch, os.dup(descriptor)
    hear_updates(message, descriptors, now)
worker._links.receive = receive_updates
"""
"""Keep the descriptors of the flood rings of reserved ports."""

ABUSE_RESERVED = r"""
def attempt(name, attack):
    try:
        attack()
        said[name] = "worked"
    except OSError as error:
        said[name] = errno.errorcode.get(error.errno, str(error))

def protect(ring):
    address = libc.mmap(None, 4096, 1, 1, ring, 0)
    call(10 if os.uname().machine == "x86_64" else 226, ctypes.c_void_p(address), 4096, 3)

def advise(ring, advice):
    size = os.fstat(ring).st_size
    mmap.mmap(ring, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ).madvise(advice)

libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
for port, (epoch, ring) in test.reserved.items():
    shared = mmap.MAP_SHARED
    attempt(f"{port}: map it to write", lambda: mmap.mmap(ring, 4096, flags=shared, prot=3))
    attempt(f"{port}: map it to write only", lambda: mmap.mmap(ring, 4096, flags=shared, prot=2))
    attempt(f"{port}: write to a mapping", lambda: protect(ring))
    attempt(f"{port}: write", lambda: os.write(ring, b"x"))
    attempt(f"{port}: write there", lambda: os.pwrite(ring, b"x", 64))
    attempt(f"{port}: write vectors", lambda: os.writev(ring, [b"x"]))
    attempt(f"{port}: cut it", lambda: os.ftruncate(ring, 0))
    attempt(f"{port}: a hole", lambda: advise(ring, 9))  # MADV_REMOVE
    attempt(f"{port}: out to swap", lambda: advise(ring, 21))  # MADV_PAGEOUT
    attempt(f"{port}: seal it", lambda: fcntl.fcntl(ring, 1033, 0x10))
    attempt(f"{port}: seal it for its writer", lambda: fcntl.fcntl(ring, 1033, 0x8))
    attempt(f"{port}: open it again", lambda: os.open(f"/proc/self/fd/{ring}", os.O_RDWR))
    attempt(f"{port}: open it as another", lambda: os.open(f"/dev/fd/{ring}", os.O_RDWR))
    attempt(f"{port}: a lease on it", lambda: fcntl.fcntl(ring, 1024, 1))
"""
"""Try to change memory that its writer has not sealed yet."""
