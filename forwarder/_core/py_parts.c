/* The parts of the core that can be used one by one: MAC table and ring, for oracle and contract tests and
   for tools that speak to a ring from Python. */
#include "py_core.h"

#include <errno.h>

#include "fdb.h"
#include "frame.h"
#include "ring.h"

struct py_fdb {
    PyObject_HEAD
    struct fdb *fdb;
};

struct py_writer {
    PyObject_HEAD
    struct ring_tx tx;
};

struct py_reader {
    PyObject_HEAD
    struct ring_rx rx;
    bool vnet; /* of the run last taken from */
};

static void *allocate(PyTypeObject *type)
{
    return ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
}

static PyObject *fdb_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    unsigned long long secret = 0;
    if (!PyArg_ParseTuple(args, "|K", &secret))
        return NULL;
    struct py_fdb *self = allocate(type);
    if (self == NULL)
        return NULL;
    self->fdb = PyMem_Malloc(sizeof *self->fdb);
    if (self->fdb == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    fdb_init(self->fdb, secret);
    return (PyObject *)self;
}

static void fdb_dealloc(PyObject *self)
{
    PyMem_Free(((struct py_fdb *)self)->fdb);
    py_free(self);
}

static bool parse_mac_port(PyObject *args, const char **mac, unsigned *port)
{
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "y#I", mac, &size, port))
        return false;
    if (size == MAC_BYTES && *port < MAX_PORTS)
        return true;
    PyErr_SetString(PyExc_ValueError, "an address has 6 bytes, a port is below MAX_PORTS");
    return false;
}

static PyObject *fdb_learn_method(PyObject *self, PyObject *args)
{
    const char *mac;
    unsigned port;
    if (!parse_mac_port(args, &mac, &port))
        return NULL;
    return PyBool_FromLong(fdb_learn(((struct py_fdb *)self)->fdb, (const uint8_t *)mac, port) != FDB_REFUSED);
}

static PyObject *fdb_pin_method(PyObject *self, PyObject *args)
{
    const char *mac;
    unsigned port;
    if (!parse_mac_port(args, &mac, &port))
        return NULL;
    return PyBool_FromLong(fdb_pin(((struct py_fdb *)self)->fdb, (const uint8_t *)mac, port));
}

static PyObject *fdb_lookup_method(PyObject *self, PyObject *args)
{
    const char *mac;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "y#", &mac, &size))
        return NULL;
    if (size != MAC_BYTES)
        return PyErr_Format(PyExc_ValueError, "an address has 6 bytes");
    return PyLong_FromUnsignedLong(fdb_lookup(((struct py_fdb *)self)->fdb, (const uint8_t *)mac));
}

static PyObject *fdb_age_method(PyObject *self, PyObject *args)
{
    unsigned now;
    if (!PyArg_ParseTuple(args, "I", &now))
        return NULL;
    fdb_age(((struct py_fdb *)self)->fdb, now);
    Py_RETURN_NONE;
}

static PyObject *fdb_forget_method(PyObject *self, PyObject *args)
{
    unsigned port;
    if (!PyArg_ParseTuple(args, "I", &port))
        return NULL;
    if (port < MAX_PORTS)
        fdb_forget(((struct py_fdb *)self)->fdb, port);
    Py_RETURN_NONE;
}

static PyObject *fdb_count_method(PyObject *self, PyObject *args)
{
    unsigned port;
    if (!PyArg_ParseTuple(args, "I", &port))
        return NULL;
    return PyLong_FromUnsignedLong(port < MAX_PORTS ? ((struct py_fdb *)self)->fdb->count[port] : 0);
}

static PyMethodDef fdb_methods[] = {
    {"learn", fdb_learn_method, METH_VARARGS, NULL},   {"pin", fdb_pin_method, METH_VARARGS, NULL},
    {"lookup", fdb_lookup_method, METH_VARARGS, NULL}, {"age", fdb_age_method, METH_VARARGS, NULL},
    {"forget", fdb_forget_method, METH_VARARGS, NULL}, {"count", fdb_count_method, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static bool parse_ring(PyObject *args, int *fd, struct ring_id *id)
{
    unsigned long long src_epoch, dst_epoch;
    if (!PyArg_ParseTuple(args, "iIKIK", fd, &id->src_port, &src_epoch, &id->dst_port, &dst_epoch))
        return false;
    id->src_epoch = src_epoch;
    id->dst_epoch = dst_epoch;
    return true;
}

static PyObject *writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    int fd;
    struct ring_id id = {0};
    if (!parse_ring(args, &fd, &id))
        return NULL;
    struct py_writer *self = allocate(type);
    if (self == NULL || ring_tx_open(&self->tx, fd, &id) == 0)
        return (PyObject *)self;
    py_os_error();
    Py_DECREF(self);
    return NULL;
}

static void writer_dealloc(PyObject *self)
{
    ring_tx_close(&((struct py_writer *)self)->tx);
    py_free(self);
}

/* put(records, source, vnet=False) -> frames that fitted */
static PyObject *writer_put(PyObject *self, PyObject *args)
{
    const char *records, *src;
    Py_ssize_t bytes, src_bytes;
    uint32_t at = 0, size, frames = 0;
    int vnet = 0;
    if (!PyArg_ParseTuple(args, "y#y#|p", &records, &bytes, &src, &src_bytes, &vnet))
        return NULL;
    while (record_next((const uint8_t *)records + at, (uint64_t)bytes - at, &size) == RECORD_WHOLE) {
        at += size;
        frames++;
    }
    if ((Py_ssize_t)at != bytes || at > RUN_LIMIT || src_bytes != MAC_BYTES || frames == 0)
        return PyErr_Format(PyExc_ValueError, "a run is whole records, at most RUN_LIMIT bytes, and a source address");
    return PyLong_FromUnsignedLong(ring_put(&((struct py_writer *)self)->tx, (const uint8_t *)records, at, frames,
                                            (const uint8_t *)src, vnet != 0));
}

static PyObject *writer_publish(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(ring_publish(&((struct py_writer *)self)->tx));
}

static PyObject *writer_broken(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((struct py_writer *)self)->tx.broken);
}

static PyMethodDef writer_methods[] = {
    {"put", writer_put, METH_VARARGS, NULL}, {"publish", writer_publish, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};

static PyObject *reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    int fd;
    struct ring_id id = {0};
    if (!parse_ring(args, &fd, &id))
        return NULL;
    struct py_reader *self = allocate(type);
    if (self == NULL || ring_rx_open(&self->rx, fd, &id) == 0)
        return (PyObject *)self;
    py_os_error();
    Py_DECREF(self);
    return NULL;
}

static void reader_dealloc(PyObject *self)
{
    ring_rx_close(&((struct py_reader *)self)->rx);
    py_free(self);
}

/* take(bytes) -> record bytes consumed, at most `bytes` of the first viewed run */
static PyObject *reader_take(PyObject *self, PyObject *args)
{
    struct ring_rx *rx = &((struct py_reader *)self)->rx;
    unsigned int most;
    struct run_view view;
    if (!PyArg_ParseTuple(args, "I", &most))
        return NULL;
    ring_refresh(rx);
    if (ring_view(rx, &view, 1, most) == 0)
        return PyBytes_FromStringAndSize(NULL, 0);
    uint32_t bytes = view.bytes < most ? view.bytes : most;
    PyObject *result = PyBytes_FromStringAndSize((const char *)view.records, bytes);
    ring_consume(rx, &view, 1, bytes);
    ((struct py_reader *)self)->vnet = view.run.vnet;
    return result;
}

static PyObject *reader_unread(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(ring_unread_frames(&((struct py_reader *)self)->rx));
}

static PyObject *reader_broken(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((struct py_reader *)self)->rx.broken);
}

static PyObject *reader_vnet(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((struct py_reader *)self)->vnet);
}

static PyMethodDef reader_methods[] = {
    {"take", reader_take, METH_VARARGS, NULL}, {"unread_frames", reader_unread, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};

static PyGetSetDef writer_properties[] = {{"broken", writer_broken, NULL, NULL, NULL}, {NULL, NULL, NULL, NULL, NULL}};
static PyGetSetDef reader_properties[] = {{"broken", reader_broken, NULL, NULL, NULL},
                                          {"vnet", reader_vnet, NULL, NULL, NULL},
                                          {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot fdb_slots[] = {
    {Py_tp_new, fdb_new}, {Py_tp_dealloc, fdb_dealloc}, {Py_tp_methods, fdb_methods}, {0, NULL}};
static PyType_Slot writer_slots[] = {{Py_tp_new, writer_new},
                                     {Py_tp_dealloc, writer_dealloc},
                                     {Py_tp_methods, writer_methods},
                                     {Py_tp_getset, writer_properties},
                                     {0, NULL}};
static PyType_Slot reader_slots[] = {{Py_tp_new, reader_new},
                                     {Py_tp_dealloc, reader_dealloc},
                                     {Py_tp_methods, reader_methods},
                                     {Py_tp_getset, reader_properties},
                                     {0, NULL}};

static PyType_Spec specs[] = {
    {"forwarder._core.Fdb", sizeof(struct py_fdb), 0, Py_TPFLAGS_DEFAULT, fdb_slots},
    {"forwarder._core.RingWriter", sizeof(struct py_writer), 0, Py_TPFLAGS_DEFAULT, writer_slots},
    {"forwarder._core.RingReader", sizeof(struct py_reader), 0, Py_TPFLAGS_DEFAULT, reader_slots},
};

int py_add_parts(PyObject *module)
{
    return py_add_type(module, &specs[0], "Fdb") < 0 || py_add_type(module, &specs[1], "RingWriter") < 0
                   || py_add_type(module, &specs[2], "RingReader") < 0
               ? -1
               : 0;
}
