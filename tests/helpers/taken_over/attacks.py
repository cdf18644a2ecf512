"""What a guest that has taken its worker over would try; each attack by its name."""

ATTACKS = r"""
victims = facts["victims"]
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
    call(310, pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)

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
    attempt(f"stop {label}", lambda: call(234, pid, pid, signal.SIGSTOP))
    attempt(f"trace {label}", lambda: call(101, 16, pid, 0, 0))
    attempt(f"read memory of {label}", lambda: read_memory(pid))
    attempt(f"open memory of {label}", lambda: os.open(f"/proc/{pid}/mem", os.O_RDWR))
    attempt(f"list descriptors of {label}", lambda: os.listdir(f"/proc/{pid}/fd"))
    attempt(f"pidfd of {label}", lambda: os.pidfd_open(pid))
    attempt(f"take a descriptor of {label}", lambda: call(438, 3, 0, 0))
    attempt(f"SIGKILL by the kernel to {label}", lambda: signal_by_the_kernel(pid))
    attempt(f"priority of {label}", lambda: os.setpriority(os.PRIO_PROCESS, pid, 10))
    attempt(f"limits of {label}", lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (4, 4)))
attempt("kill everybody", lambda: os.kill(-1, signal.SIGKILL))
attempt("read a file", lambda: os.open("/etc/passwd", os.O_RDONLY))
attempt("write a file", lambda: os.open(facts["directory"] + "/made", os.O_WRONLY | os.O_CREAT, 0o600))
attempt("remove a file", lambda: os.unlink(facts["directory"] + "/run/supervisor.lock"))
attempt("list a directory", lambda: os.listdir("/"))
attempt("change root", lambda: os.chroot("."))
attempt("mount", lambda: call(165, 0, 0, 0, 0, 0))
attempt("user namespace", lambda: call(272, 0x10000000))
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
attempt("io_uring", lambda: call(425, 8, 0))
attempt("bpf", lambda: call(321, 0, 0, 0))
attempt("keyring", lambda: call(250, 0, -3, 1))
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
"""Every one must fail if the named parts are in force, even if the kernel lacks all others."""

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
attempt("another network", lambda: call(308, os.open("/proc/1/ns/net", os.O_RDONLY), 0))
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

def packets():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()

attempt("the API", lambda: api(facts["services"]))
attempt("the socket of a forward", lambda: api(facts["socket"]))
attempt("a forward", forward)
attempt("packets of the network", packets)
for victim, pid in victims.items():
    attempt("the network of " + victim, lambda: call(308, os.open("/proc/%d/ns/net" % pid, os.O_RDONLY), 0))
    attempt("the users of " + victim, lambda: call(308, os.open("/proc/%d/ns/user" % pid, os.O_RDONLY), 0))
"""
"""What a worker would try besides where there is a gateway."""

MESSAGES = r"""
import random
chance = random.Random(facts["seed"])
sock = worker._channel._sock
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
    fds = [chance.choice((0, sock.fileno())) for _ in range(chance.choice((0, 0, 1, 2, 3, 7)))]
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
