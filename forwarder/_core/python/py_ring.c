/* The two ends of a ring by themselves, for oracle and contract tests and for tools that speak to a ring from
   Python. */
#include "python/py_types.h"

#include <errno.h>

#include "packet/frame.h"
#include "shared/ring.h"

struct py_writer {
    PyObject_HEAD
    struct ring_tx tx;
};

struct py_reader {
    PyObject_HEAD
    struct ring_rx rx;
    bool vnet; /* of the run last taken from */
};

static bool parse_ring(PyObject *args, struct ring_fds *fds, struct ring_id *id)
{
    unsigned long long src_epoch, dst_epoch;
    if (!PyArg_ParseTuple(args, "iiIKIK", &fds->ring, &fds->tail, &id->src_port, &src_epoch, &id->dst_port, &dst_epoch))
        return false;
    id->src_epoch = src_epoch;
    id->dst_epoch = dst_epoch;
    return true;
}

static PyObject *writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    struct ring_fds fds;
    struct ring_id id = {0};
    if (!parse_ring(args, &fds, &id))
        return NULL;
    struct py_writer *self = py_allocate(type);
    if (self == NULL || ring_tx_open(&self->tx, fds, &id) == 0)
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

struct parsed_run {
    const uint8_t *records, *src;
    uint32_t bytes, frames;
    int vnet;
    unsigned int gap;
};

static bool parse_run(PyObject *args, const char *format, struct parsed_run *run)
{
    const char *records, *src;
    Py_ssize_t bytes, src_bytes;
    uint32_t size;
    *run = (struct parsed_run){0};
    if (!PyArg_ParseTuple(args, format, &records, &bytes, &src, &src_bytes, &run->vnet, &run->gap))
        return false;
    run->records = (const uint8_t *)records;
    run->src = (const uint8_t *)src;
    while (record_next(run->records + run->bytes, (uint64_t)bytes - run->bytes, &size) == RECORD_WHOLE) {
        run->bytes += size;
        run->frames++;
    }
    if ((Py_ssize_t)run->bytes == bytes && bytes <= RUN_LIMIT && src_bytes == MAC_BYTES && run->frames > 0)
        return true;
    PyErr_SetString(PyExc_ValueError, "a run is whole records, at most RUN_LIMIT bytes, and a source address");
    return false;
}

/* put(records, source, vnet=False) -> frames that fitted */
static PyObject *writer_put(PyObject *self, PyObject *args)
{
    struct parsed_run run;
    if (!parse_run(args, "y#y#|p", &run))
        return NULL;
    return PyLong_FromUnsignedLong(
        ring_put(&((struct py_writer *)self)->tx, run.records, run.bytes, run.frames, run.src, run.vnet != 0));
}

/* commit(records, source, vnet=False, gap=0) -> frames that fitted, written `gap` bytes behind the front first */
static PyObject *writer_commit(PyObject *self, PyObject *args)
{
    struct ring_tx *tx = &((struct py_writer *)self)->tx;
    struct parsed_run run;
    if (!parse_run(args, "y#y#|pI", &run))
        return NULL;
    if (!ring_has_room(tx, (uint64_t)run.gap + run.bytes))
        return PyLong_FromLong(0);
    memcpy(ring_front(tx) + run.gap, run.records, run.bytes);
    return PyLong_FromUnsignedLong(
        ring_commit(tx, tx->head + run.gap, run.bytes, run.frames, run.src, run.vnet != 0));
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
    {"put", writer_put, METH_VARARGS, NULL},
    {"commit", writer_commit, METH_VARARGS, NULL},
    {"publish", writer_publish, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyObject *reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    struct ring_fds fds;
    struct ring_id id = {0};
    if (!parse_ring(args, &fds, &id))
        return NULL;
    struct py_reader *self = py_allocate(type);
    if (self == NULL || ring_rx_open(&self->rx, fds, &id) == 0)
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
    {"forwarder._core.RingWriter", sizeof(struct py_writer), 0, Py_TPFLAGS_DEFAULT, writer_slots},
    {"forwarder._core.RingReader", sizeof(struct py_reader), 0, Py_TPFLAGS_DEFAULT, reader_slots},
};

int py_add_ring_ends(PyObject *module)
{
    bool failed = py_add_type(module, &specs[0], "RingWriter") < 0 || py_add_type(module, &specs[1], "RingReader") < 0;
    return failed ? -1 : 0;
}
