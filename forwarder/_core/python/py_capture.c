/* CaptureReader: the reader's end of a capture; and Engine's methods that begin and end captures. */
#include "python/py_capture.h"

#include <errno.h>

#include "capture/capture.h"

/* Frames that one call returns at the most, so that a reader comes round to all ports. */
#define READ_MOST 512

struct py_capture {
    PyObject_HEAD
    struct capture_rx rx;
};

static PyObject *reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    int fd;
    unsigned int port;
    unsigned long long epoch;
    if (!PyArg_ParseTuple(args, "iIK", &fd, &port, &epoch))
        return NULL;
    struct py_capture *self = py_allocate(type);
    if (self == NULL)
        return NULL;
    if (capture_rx_open(&self->rx, fd, port, epoch) == 0)
        return (PyObject *)self;
    py_os_error();
    Py_DECREF(self);
    return NULL;
}

static void reader_dealloc(PyObject *self)
{
    struct py_capture *capture = (struct py_capture *)self;
    capture_rx_close(&capture->rx);
    py_free(self);
}

static const char *reason_of(const struct capture_head *head)
{
    if (head->way != CAPTURE_DROP)
        return "";
    if (head->reason == CAPTURE_EGRESS_FULL)
        return "egress_full";
    return head->reason < COUNTER_COUNT ? counter_names[head->reason] : "unknown";
}

/* A record as a tuple; a worker that was taken over may have written anything. */
static PyObject *sighted(const struct capture_head *head, const uint8_t *frame)
{
    return Py_BuildValue("(KIIsIy#)", (unsigned long long)head->time_ns, (unsigned int)head->way,
                         (unsigned int)head->peer, reason_of(head), (unsigned int)head->length, (const char *)frame,
                         (Py_ssize_t)head->kept);
}

static PyObject *reader_read(PyObject *object, PyObject *unused)
{
    (void)unused;
    struct py_capture *self = (struct py_capture *)object;
    struct capture_head head;
    PyObject *list = PyList_New(0);
    for (int i = 0; list != NULL && i < READ_MOST; i++) {
        const uint8_t *frame = capture_next(&self->rx, &head);
        if (frame == NULL)
            break;
        PyObject *one = sighted(&head, frame);
        if (one == NULL || PyList_Append(list, one) < 0)
            Py_CLEAR(list);
        Py_XDECREF(one);
    }
    capture_take(&self->rx);
    return list;
}

static PyObject *reader_lost(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(capture_lost(&((struct py_capture *)self)->rx));
}

static PyObject *reader_broken(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((struct py_capture *)self)->rx.broken);
}

static PyMethodDef reader_methods[] = {{"read", reader_read, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static PyGetSetDef reader_properties[] = {{"broken", reader_broken, NULL, NULL, NULL},
                                          {"lost", reader_lost, NULL, NULL, NULL},
                                          {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot reader_slots[] = {{Py_tp_new, reader_new},
                                     {Py_tp_dealloc, reader_dealloc},
                                     {Py_tp_methods, reader_methods},
                                     {Py_tp_getset, reader_properties},
                                     {0, NULL}};
static PyType_Spec reader_spec = {
    .name = "forwarder._core.CaptureReader",
    .basicsize = sizeof(struct py_capture),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = reader_slots,
};

int py_add_capture_reader(PyObject *module)
{
    return py_add_type(module, &reader_spec, "CaptureReader");
}

PyObject *py_engine_capture(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    int fd;
    const char *program;
    Py_ssize_t bytes;
    const Py_ssize_t each = sizeof(struct cbpf_insn);
    unsigned int number, snap;
    if (e == NULL || !PyArg_ParseTuple(args, "Iiy#I", &number, &fd, &program, &bytes, &snap))
        return NULL;
    int begun = -1;
    errno = EINVAL;
    if (bytes % each == 0 && bytes <= (Py_ssize_t)CBPF_MOST * each) {
        struct wanted_frames wanted = {(const struct cbpf_insn *)program, (uint32_t)(bytes / each), snap};
        begun = captures_add(&e->captures, number, fd, (struct captured_port){e->port, e->epoch}, wanted);
    }
    if (begun < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

PyObject *py_engine_end_capture(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    unsigned int number;
    if (e == NULL || !PyArg_ParseTuple(args, "I", &number))
        return NULL;
    captures_end(&e->captures, number);
    Py_RETURN_NONE;
}

PyObject *py_engine_end_captures(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct engine *e = engine_of(self);
    if (e == NULL)
        return NULL;
    captures_end_all(&e->captures);
    Py_RETURN_NONE;
}
