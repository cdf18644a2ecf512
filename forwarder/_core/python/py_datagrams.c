/* The datagrams of the relay, carried in batches (relay/datagrams.h). */
#include "python/py_types.h"

#include "offload/vnet.h"
#include "packet/packet.h"
#include "relay/datagrams.h"

struct py_datagrams {
    PyObject_HEAD
    struct datagrams datagrams;
    bool is_open;
};

static struct datagrams *of(PyObject *self)
{
    return &((struct py_datagrams *)self)->datagrams;
}

static PyObject *datagrams_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    const char *network, *mask, *prefix;
    Py_ssize_t network_bytes, mask_bytes, prefix_bytes;
    struct lan lan;
    if (!PyArg_ParseTuple(args, "y#y#y#", &network, &network_bytes, &mask, &mask_bytes, &prefix, &prefix_bytes))
        return NULL;
    if (network_bytes != sizeof lan.network || mask_bytes != sizeof lan.mask || prefix_bytes != sizeof lan.prefix)
        return PyErr_Format(PyExc_ValueError, "a network and its mask have 4 bytes, a prefix has 8");
    memcpy(lan.network, network, sizeof lan.network);
    memcpy(lan.mask, mask, sizeof lan.mask);
    memcpy(lan.prefix, prefix, sizeof lan.prefix);
    struct py_datagrams *self = py_allocate(type);
    if (self == NULL)
        return NULL;
    self->is_open = true;
    if (datagrams_open(&self->datagrams, &lan) < 0) {
        py_os_error();
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void datagrams_dealloc(PyObject *self)
{
    if (((struct py_datagrams *)self)->is_open)
        datagrams_close(of(self));
    py_free(self);
}

static PyObject *datagrams_speak_by(PyObject *self, PyObject *args)
{
    if (!PyArg_ParseTuple(args, "iI", &of(self)->outlet.tun, &of(self)->outlet.mtu))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *datagrams_open_socket(PyObject *self, PyObject *args)
{
    int fd;
    if (!PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    return py_none_or_error(flow_socket_open(&of(self)->outlet.cache, fd));
}

static PyObject *datagrams_forget(PyObject *self, PyObject *args)
{
    int fd;
    if (!PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    flow_socket_close(&of(self)->outlet.cache, fd);
    Py_RETURN_NONE;
}

static PyObject *datagrams_used(PyObject *self, PyObject *args)
{
    int fd;
    if (!PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    const struct flow_socket *known = flow_socket_of(&of(self)->outlet.cache, fd);
    return PyFloat_FromDouble(known == NULL ? 0.0 : (double)known->used / (double)NS_PER_S);
}

/* Read an address of 4 or 16 bytes, or of none, with a port; false with ValueError. */
static bool address_of(struct flow_way *way, const char *bytes, Py_ssize_t count, uint32_t port)
{
    if (count == 4) {
        way->address.four = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        memcpy(&way->address.four.sin_addr, bytes, 4);
        way->address_bytes = sizeof way->address.four;
    } else if (count == 16) {
        way->address.six = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
        memcpy(&way->address.six.sin6_addr, bytes, 16);
        way->address_bytes = sizeof way->address.six;
    } else if (count != 0) {
        PyErr_SetString(PyExc_ValueError, "an address has 4 or 16 bytes");
        return false;
    }
    return true;
}

static bool is_address(Py_ssize_t bytes)
{
    return bytes == 4 || bytes == 16;
}

static PyObject *datagrams_from_guest(PyObject *self, PyObject *args)
{
    const char *mac, *source, *destination, *target;
    Py_ssize_t mac_bytes, source_bytes, destination_bytes, target_bytes;
    unsigned int port, hops;
    int keep, fd;
    if (!PyArg_ParseTuple(args, "y#y#y#IIpiy#", &mac, &mac_bytes, &source, &source_bytes, &destination,
                          &destination_bytes, &port, &hops, &keep, &fd, &target, &target_bytes))
        return NULL;
    struct flow_way way = {.fd = fd};
    if (mac_bytes != MAC_BYTES || !is_address(source_bytes) || destination_bytes != source_bytes || target_bytes == 0)
        return PyErr_Format(PyExc_ValueError, "an address has 4 or 16 bytes, a MAC address 6");
    if (!address_of(&way, target, target_bytes, 0))
        return NULL;
    struct flow_key key = flow_key_of_guest(source_bytes == 4 ? 4 : 6, (const uint8_t *)mac, (const uint8_t *)source,
                                            (const uint8_t *)destination, port, hops, keep != 0);
    flow_cache_enter(&of(self)->outlet.cache, &key, -1, &way, monotonic_ns());
    Py_RETURN_NONE;
}

static PyObject *datagrams_to_guest(PyObject *self, PyObject *args)
{
    const char *peer, *asked, *guest;
    Py_ssize_t peer_bytes, asked_bytes, guest_bytes;
    unsigned int port;
    int fd;
    if (!PyArg_ParseTuple(args, "iy#y#y#I", &fd, &peer, &peer_bytes, &asked, &asked_bytes, &guest, &guest_bytes,
                          &port))
        return NULL;
    if (!is_address(peer_bytes) || !is_address(guest_bytes) || asked_bytes != guest_bytes)
        return PyErr_Format(PyExc_ValueError, "an address has 4 or 16 bytes");
    struct flow_way way = {.fd = -1, .version = guest_bytes == 4 ? 4 : 6, .guest_port = port};
    memcpy(way.source, asked, (size_t)asked_bytes);
    memcpy(way.guest, guest, (size_t)guest_bytes);
    struct flow_key key = flow_key_of_socket(fd, (const uint8_t *)peer, (uint32_t)peer_bytes, 0, (const uint8_t *)"", 0);
    flow_cache_enter(&of(self)->outlet.cache, &key, fd, &way, monotonic_ns());
    Py_RETURN_NONE;
}

static PyObject *datagrams_to_socket(PyObject *self, PyObject *args)
{
    const char *peer, *local, *target, *from;
    Py_ssize_t peer_bytes, local_bytes, target_bytes, from_bytes;
    unsigned int peer_port, port;
    int fd, out;
    if (!PyArg_ParseTuple(args, "iy#Iy#iy#Iy#", &fd, &peer, &peer_bytes, &peer_port, &local, &local_bytes, &out,
                          &target, &target_bytes, &port, &from, &from_bytes))
        return NULL;
    if (!is_address(peer_bytes) || (local_bytes != 0 && !is_address(local_bytes))
        || (from_bytes != 0 && !is_address(from_bytes)))
        return PyErr_Format(PyExc_ValueError, "an address has 4 or 16 bytes");
    struct flow_way way = {.fd = out, .local_bytes = (uint32_t)from_bytes};
    if (!address_of(&way, target, target_bytes, port))
        return NULL;
    memcpy(way.local, from, (size_t)from_bytes);
    struct flow_key key = flow_key_of_socket(fd, (const uint8_t *)peer, (uint32_t)peer_bytes, peer_port,
                                             (const uint8_t *)local, (uint32_t)local_bytes);
    flow_cache_enter(&of(self)->outlet.cache, &key, fd, &way, monotonic_ns());
    Py_RETURN_NONE;
}

/* The first segment of a connection: (MAC address, addresses with their ports, hops, packet for the TUN device). */
static PyObject *syn_left(const struct message *message)
{
    const uint8_t *ip = message->syn, *mac = message->data + VNET_BYTES + MAC_BYTES;
    bool four = ip[0] >> 4 == 4;
    uint32_t size = four ? 4 : 16;
    const uint8_t *addresses = ip + (four ? IPV4_ADDRESSES : IPV6_ADDRESSES);
    const uint8_t *ports = ip + (four ? IPV4_LEAST : IPV6_BYTES);
    uint8_t key[2 * (16 + 2)], *at = key;
    for (uint32_t i = 0; i < 2; i++, at += size + 2) {
        memcpy(at, addresses + i * size, size);
        memcpy(at + size, ports + i * 2u, 2);
    }
    struct vnet said = vnet_load(message->data);
    uint32_t ethernet = (uint32_t)(ip - message->data) - VNET_BYTES;
    struct vnet vnet = {.flags = said.flags & VNET_NEEDS_SUM,
                        .sum_from = said.sum_from > ethernet ? said.sum_from - ethernet : 0,
                        .sum_offset = said.sum_offset};
    PyObject *packet = PyBytes_FromStringAndSize(NULL, VNET_BYTES + message->syn_bytes);
    if (packet == NULL)
        return NULL;
    uint8_t *bytes = (uint8_t *)PyBytes_AsString(packet);
    vnet_store(bytes, &vnet);
    memcpy(bytes + VNET_BYTES, ip, message->syn_bytes);
    return Py_BuildValue("(y#y#IN)", mac, (Py_ssize_t)MAC_BYTES, key, (Py_ssize_t)(at - key),
                         (unsigned int)(four ? ip[8] : ip[7]), packet);
}

static PyObject *frame_left(const struct message *message)
{
    if (message->syn != NULL)
        return syn_left(message);
    return PyBytes_FromStringAndSize((const char *)message->data, message->bytes);
}

static PyObject *datagram_left(const struct message *message)
{
    const union flow_address *peer = &message->peer;
    bool four = peer->any.sa_family == AF_INET;
    const char *address = four ? (const char *)&peer->four.sin_addr : (const char *)&peer->six.sin6_addr;
    return Py_BuildValue("(y#y#IIy#I)", message->data, (Py_ssize_t)message->bytes, address, (Py_ssize_t)(four ? 4 : 16),
                         (unsigned int)ntohs(peer->four.sin_port), four ? 0u : (unsigned int)peer->six.sin6_scope_id,
                         message->local, (Py_ssize_t)message->local_bytes, (unsigned int)message->segment);
}

/* The messages of the last call that are left to the caller, each as `make` makes it. */
static PyObject *left(const struct datagrams *datagrams, PyObject *(*make)(const struct message *))
{
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < datagrams->count; i++) {
        if (!datagrams->messages[i].left)
            continue;
        PyObject *each = make(&datagrams->messages[i]);
        if (each == NULL || PyList_Append(list, each) < 0)
            Py_CLEAR(list);
        Py_XDECREF(each);
    }
    return list;
}

static PyObject *result_of(struct datagrams *datagrams, int count, PyObject *(*make)(const struct message *))
{
    if (count < 0)
        return py_os_error();
    PyObject *list = left(datagrams, make);
    return list == NULL ? NULL : Py_BuildValue("(iIN)", count, (unsigned int)datagrams->carried, list);
}

static PyObject *datagrams_read_frames(PyObject *self, PyObject *args)
{
    int fd;
    if (!PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    return result_of(of(self), datagrams_from_guests(of(self), fd, monotonic_ns()), frame_left);
}

static PyObject *datagrams_read(PyObject *self, PyObject *args)
{
    int fd, by_port;
    if (!PyArg_ParseTuple(args, "ip", &fd, &by_port))
        return NULL;
    return result_of(of(self), datagrams_from_socket(of(self), fd, by_port != 0, monotonic_ns()), datagram_left);
}

static PyObject *datagrams_shed_method(PyObject *self, PyObject *args)
{
    const char *mac;
    Py_ssize_t mac_bytes;
    unsigned int kind;
    double seconds;
    if (!PyArg_ParseTuple(args, "y#Id", &mac, &mac_bytes, &kind, &seconds))
        return NULL;
    if (mac_bytes != MAC_BYTES || kind >= SHED_KINDS || !(seconds >= 0 && seconds <= 60))
        return PyErr_Format(PyExc_ValueError, "6 bytes, a kind, and at most 60 seconds");
    datagrams_shed(of(self), (const uint8_t *)mac, (enum shed)kind,
                   monotonic_ns() + (uint64_t)(seconds * (double)NS_PER_S));
    Py_RETURN_NONE;
}

static PyObject *datagrams_take_counts(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct datagrams *datagrams = of(self);
    PyObject *counts = Py_BuildValue("(KKK)", (unsigned long long)datagrams->outlet.dropped,
                                     (unsigned long long)datagrams->shed[SHED_SYN],
                                     (unsigned long long)datagrams->shed[SHED_FORGED]);
    if (counts != NULL) {
        datagrams->outlet.dropped = 0;
        memset(datagrams->shed, 0, sizeof datagrams->shed);
    }
    return counts;
}

static PyMethodDef methods[] = {
    {"speak_by", datagrams_speak_by, METH_VARARGS, NULL},
    {"open", datagrams_open_socket, METH_VARARGS, NULL},
    {"forget", datagrams_forget, METH_VARARGS, NULL},
    {"used", datagrams_used, METH_VARARGS, NULL},
    {"from_guest", datagrams_from_guest, METH_VARARGS, NULL},
    {"to_guest", datagrams_to_guest, METH_VARARGS, NULL},
    {"to_socket", datagrams_to_socket, METH_VARARGS, NULL},
    {"read_frames", datagrams_read_frames, METH_VARARGS, NULL},
    {"read", datagrams_read, METH_VARARGS, NULL},
    {"shed", datagrams_shed_method, METH_VARARGS, NULL},
    {"take_counts", datagrams_take_counts, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL}};

static PyType_Slot slots[] = {
    {Py_tp_new, datagrams_new}, {Py_tp_dealloc, datagrams_dealloc}, {Py_tp_methods, methods}, {0, NULL}};

static PyType_Spec spec = {"forwarder._core.Datagrams", sizeof(struct py_datagrams), 0, Py_TPFLAGS_DEFAULT, slots};

int py_add_datagrams(PyObject *module)
{
    return py_add_type(module, &spec, "Datagrams") < 0 || PyModule_AddIntConstant(module, "SHED_SYN", SHED_SYN) < 0
                   || PyModule_AddIntConstant(module, "SHED_FORGED", SHED_FORGED) < 0
               ? -1
               : 0;
}
