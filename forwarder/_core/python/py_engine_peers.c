#include "python/py_engine_peers.h"

#include "engine/engine_peers.h"

PyObject *py_engine_wanted(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct engine *e = engine_of(self);
    PyObject *result = e == NULL ? NULL : PyList_New(0);
    for (unsigned port = 0; result != NULL && e->any_wanted && port < MAX_PORTS; port++) {
        if (!e->wanted[port])
            continue;
        e->wanted[port] = false;
        PyObject *number = PyLong_FromUnsignedLong(port);
        if (number == NULL || PyList_Append(result, number) < 0)
            Py_CLEAR(result);
        Py_XDECREF(number);
    }
    if (result != NULL)
        e->any_wanted = false;
    return result;
}

PyObject *py_engine_peer_join(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    unsigned int port;
    unsigned long long epoch, attachment;
    if (e == NULL || !PyArg_ParseTuple(args, "IKK", &port, &epoch, &attachment))
        return NULL;
    if (port == 0 || port >= MAX_PORTS || port == e->port)
        return PyErr_Format(PyExc_ValueError, "port %u cannot be a peer", port);
    return py_none_or_error(engine_peer_join(e, port, epoch, attachment));
}

PyObject *py_engine_peer_leave(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    unsigned int port;
    if (e == NULL || !PyArg_ParseTuple(args, "I", &port))
        return NULL;
    engine_peer_leave(e, port);
    Py_RETURN_NONE;
}

PyObject *py_engine_attach_flood(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"port", "epoch", "fd", "from_start", NULL};
    struct engine *e = engine_of(self);
    unsigned int port;
    unsigned long long epoch;
    int fd, from_start;
    if (e == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "IKi$p", names, &port, &epoch, &fd, &from_start))
        return NULL;
    return py_none_or_error(engine_attach_flood(e, port, epoch, fd, from_start != 0));
}

PyObject *py_engine_move_floods(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    int fd;
    if (e == NULL || !PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    return py_none_or_error(engine_move_floods(e, fd));
}

PyObject *py_engine_floods_are_over(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    unsigned int port;
    if (e == NULL || !PyArg_ParseTuple(args, "I", &port))
        return NULL;
    return PyBool_FromLong(engine_floods_are_over(e, port));
}

PyObject *py_engine_attach_rx(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    unsigned int port;
    unsigned long long epoch;
    struct ring_fds fds;
    if (e == NULL || !PyArg_ParseTuple(args, "IKii", &port, &epoch, &fds.ring, &fds.tail))
        return NULL;
    return py_none_or_error(engine_attach_rx(e, port, epoch, fds));
}

PyObject *py_engine_attach_tx(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    unsigned int port;
    unsigned long long epoch;
    struct ring_fds fds;
    int doorbell;
    if (e == NULL || !PyArg_ParseTuple(args, "IKiii", &port, &epoch, &fds.ring, &fds.tail, &doorbell))
        return NULL;
    return py_none_or_error(engine_attach_tx(e, port, epoch, fds, doorbell));
}

PyObject *py_engine_give_up_ring(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    unsigned int port;
    if (e == NULL || !PyArg_ParseTuple(args, "I", &port))
        return NULL;
    engine_give_up_ring(e, port);
    Py_RETURN_NONE;
}

PyObject *py_engine_pin(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    unsigned int port;
    PyObject *macs;
    if (e == NULL || !PyArg_ParseTuple(args, "IO", &port, &macs))
        return NULL;
    if (port == 0 || port >= MAX_PORTS)
        return PyErr_Format(PyExc_ValueError, "port %u is out of range", port);
    Py_ssize_t count = PySequence_Size(macs);
    if (count < 0)
        return NULL;
    fdb_unpin(&e->stats->fdb, port);
    if (port == e->port)
        e->own_pins = count > 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PySequence_GetItem(macs, i);
        char *bytes;
        Py_ssize_t size;
        int parsed = item == NULL ? -1 : PyBytes_AsStringAndSize(item, &bytes, &size);
        bool pinned = parsed == 0 && size == MAC_BYTES && fdb_pin(&e->stats->fdb, (const uint8_t *)bytes, port);
        Py_XDECREF(item);
        if (parsed < 0)
            return NULL;
        if (!pinned)
            return PyErr_Format(PyExc_ValueError, "address %zd of port %u cannot be pinned", i, port);
    }
    Py_RETURN_NONE;
}

PyObject *py_engine_set_flood_unknown(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    int enabled;
    if (e == NULL || !PyArg_ParseTuple(args, "p", &enabled))
        return NULL;
    e->flood_unknown = enabled != 0;
    Py_RETURN_NONE;
}

PyObject *py_engine_infer(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    unsigned int mtu;
    if (e == NULL || !PyArg_ParseTuple(args, "I", &mtu))
        return NULL;
    if (vm_takes_headers(&e->vm) || mtu > UINT16_MAX)
        return PyErr_Format(PyExc_ValueError, "headers are inferred for sockets only, and an MTU up to 65,535");
    e->vm.infer_mtu = mtu;
    e->unfinished = (struct unfinished){0};
    Py_RETURN_NONE;
}

PyObject *py_engine_limit(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    unsigned int longest;
    if (e == NULL || !PyArg_ParseTuple(args, "I", &longest))
        return NULL;
    port_limit(e, longest);
    Py_RETURN_NONE;
}

PyObject *py_engine_take(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    struct intake intake;
    if (e == NULL || !PyArg_ParseTuple(args, "II", &intake.takes, &intake.longest))
        return NULL;
    port_take(e, intake);
    Py_RETURN_NONE;
}

PyObject *py_engine_age(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    unsigned int now;
    if (e == NULL || !PyArg_ParseTuple(args, "I", &now))
        return NULL;
    fdb_age(&e->stats->fdb, now);
    Py_RETURN_NONE;
}

PyObject *py_engine_set_limits(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"broadcast", "multicast", "unknown", "bytes", "macs", NULL};
    struct engine *e = engine_of(self);
    unsigned long long broadcast, multicast, unknown, bytes;
    unsigned int macs;
    if (e == NULL
        || !PyArg_ParseTupleAndKeywords(args, kwargs, "$KKKKI", names, &broadcast, &multicast, &unknown, &bytes, &macs))
        return NULL;
    e->group_rate[0] = (struct rate_limit){.per_second = broadcast};
    e->group_rate[1] = (struct rate_limit){.per_second = multicast};
    e->unknown_rate = (struct rate_limit){.per_second = unknown};
    e->byte_rate = (struct rate_limit){.per_second = bytes};
    e->mac_limit = macs;
    Py_RETURN_NONE;
}

PyObject *py_engine_set_reach(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    unsigned int port;
    int allowed;
    if (e == NULL || !PyArg_ParseTuple(args, "Ip", &port, &allowed))
        return NULL;
    return PyBool_FromLong(engine_set_reach(e, port, allowed != 0));
}

PyObject *py_engine_idle_rings(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct engine *e = engine_of(self);
    PyObject *result = e == NULL ? NULL : PyList_New(0);
    for (uint32_t i = 0; result != NULL && i < e->peers.count; i++) {
        if (!engine_ring_is_idle(e->peers.at[e->peers.port[i]]))
            continue;
        PyObject *number = PyLong_FromUnsignedLong(e->peers.port[i]);
        if (number == NULL || PyList_Append(result, number) < 0)
            Py_CLEAR(result);
        Py_XDECREF(number);
    }
    return result;
}

PyObject *py_engine_detach_tx(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    unsigned int port;
    if (e == NULL || !PyArg_ParseTuple(args, "I", &port))
        return NULL;
    return PyBool_FromLong(engine_detach_tx(e, port));
}

PyObject *py_engine_detach_rx(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    unsigned int port;
    if (e == NULL || !PyArg_ParseTuple(args, "I", &port))
        return NULL;
    engine_detach_rx(e, port);
    Py_RETURN_NONE;
}
