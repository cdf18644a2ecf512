/* The connections of the relay (relay/splices.h, relay/dials.h). */
#include "python/py_types.h"

#include <errno.h>
#include <unistd.h>

#include "relay/dials.h"
#include "relay/splice_turn.h"

#define MOST_OPTIONS 16u

struct py_splices {
    PyObject_HEAD
    struct splices splices;
    bool is_open;
};

static struct splices *of(PyObject *self)
{
    return &((struct py_splices *)self)->splices;
}

static PyObject *splices_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args, (void)kwargs;
    struct py_splices *self = py_allocate(type);
    if (self == NULL)
        return NULL;
    if (splices_open(&self->splices) < 0) {
        py_os_error();
        Py_DECREF(self);
        return NULL;
    }
    self->is_open = true;
    return (PyObject *)self;
}

static void splices_dealloc(PyObject *self)
{
    if (((struct py_splices *)self)->is_open)
        splices_close(of(self));
    py_free(self);
}

static PyObject *splices_close_method(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (((struct py_splices *)self)->is_open)
        splices_close(of(self));
    ((struct py_splices *)self)->is_open = false;
    Py_RETURN_NONE;
}

/* Whether it is open; if not, there is an exception. */
static bool check_open(PyObject *self)
{
    if (!((struct py_splices *)self)->is_open)
        PyErr_SetString(PyExc_ValueError, "closed");
    return ((struct py_splices *)self)->is_open;
}

static PyObject *splices_watch_method(PyObject *self, PyObject *args)
{
    int fd;
    unsigned int bit;
    if (!PyArg_ParseTuple(args, "iI", &fd, &bit) || !check_open(self))
        return NULL;
    if (bit >= SPLICE_WATCHED)
        return PyErr_Format(PyExc_ValueError, "a bit below %u", SPLICE_WATCHED);
    return py_none_or_error(splices_watch(of(self), fd, bit));
}

static PyObject *splices_wait_method(PyObject *self, PyObject *args)
{
    struct splices *splices = of(self);
    double until;
    int status;
    if (!PyArg_ParseTuple(args, "d", &until))
        return NULL;
    if (!check_open(self))
        return NULL;
    uint64_t late = until <= 0 ? 0 : until < 1e9 ? (uint64_t)(until * (double)NS_PER_S) : UINT64_MAX;
    Py_BEGIN_ALLOW_THREADS
    status = splices_wait(splices, late);
    Py_END_ALLOW_THREADS
    if (status < 0 && errno != EINTR)
        return py_os_error();
    if (status < 0 && PyErr_CheckSignals() < 0)
        return NULL;
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < splices->report_count; i++) {
        const struct splice_report *each = &splices->reports[i];
        PyObject *news = Py_BuildValue("(Iii)", (unsigned int)each->number, (int)each->news, each->error);
        if (news == NULL || PyList_Append(list, news) < 0)
            Py_CLEAR(list);
        Py_XDECREF(news);
    }
    return list == NULL ? NULL : Py_BuildValue("(IN)", (unsigned int)splices->watched, list);
}

static PyObject *splices_begin_method(PyObject *self, PyObject *args)
{
    int near, is_unix;
    if (!PyArg_ParseTuple(args, "ip", &near, &is_unix))
        return NULL;
    if (!check_open(self)) {
        if (near >= 0)
            close(near);
        return NULL;
    }
    int64_t number = splices_begin(of(self), near, is_unix != 0);
    return number < 0 ? py_os_error() : PyLong_FromLongLong(number);
}

static PyObject *splices_connect(PyObject *self, PyObject *args)
{
    unsigned int number;
    int fd, is_here;
    const char *address, *packed;
    Py_ssize_t address_bytes, packed_bytes;
    unsigned short port;
    struct dial_option options[MOST_OPTIONS];
    if (!PyArg_ParseTuple(args, "Iiy#Hpy#", &number, &fd, &address, &address_bytes, &port, &is_here, &packed,
                          &packed_bytes))
        return NULL;
    if ((address_bytes != 4 && address_bytes != 16) || (size_t)packed_bytes > sizeof options
        || (size_t)packed_bytes % sizeof *options != 0)
        return PyErr_Format(PyExc_ValueError, "an address has 4 or 16 bytes; %u options at most", MOST_OPTIONS);
    uint32_t count = (uint32_t)((size_t)packed_bytes / sizeof *options);
    memcpy(options, packed, (size_t)packed_bytes);
    for (uint32_t i = 0; i < count; i++)
        if (options[i].bytes > DIAL_OPTION_BYTES)
            return PyErr_Format(PyExc_ValueError, "an option has %u bytes at most", DIAL_OPTION_BYTES);
    struct dial_target target = {.address_bytes = (uint32_t)address_bytes, .port = port, .is_here = is_here != 0};
    memcpy(target.address, address, (size_t)address_bytes);
    return PyLong_FromLong(dials_connect(of(self), number, fd, &target, options, count));
}

static PyObject *splices_join_method(PyObject *self, PyObject *args)
{
    unsigned int number;
    int near;
    if (!PyArg_ParseTuple(args, "Ii", &number, &near))
        return NULL;
    return py_none_or_error(dials_join(of(self), number, near));
}

/* An address and its port, as they are on the wire; empty for other kinds of sockets. */
static PyObject *name_of(const union dial_address *name)
{
    uint8_t bytes[18];
    if (name->any.sa_family == AF_INET) {
        memcpy(bytes, &name->four.sin_addr, 4);
        memcpy(bytes + 4, &name->four.sin_port, 2);
        return PyBytes_FromStringAndSize((const char *)bytes, 6);
    }
    if (name->any.sa_family != AF_INET6)
        return PyBytes_FromStringAndSize("", 0);
    memcpy(bytes, &name->six.sin6_addr, 16);
    memcpy(bytes + 16, &name->six.sin6_port, 2);
    return PyBytes_FromStringAndSize((const char *)bytes, 18);
}

static PyObject *splices_accept(PyObject *self, PyObject *args)
{
    (void)self;
    struct dial_client clients[DIAL_ACCEPTED];
    int listener, with_own;
    if (!PyArg_ParseTuple(args, "ip", &listener, &with_own))
        return NULL;
    int count = dials_accept(listener, with_own != 0, clients);
    if (count < 0)
        return py_os_error();
    PyObject *list = PyList_New(0);
    for (int i = 0; list != NULL && i < count; i++) {
        PyObject *each = Py_BuildValue("(iNN)", clients[i].fd, name_of(&clients[i].peer), name_of(&clients[i].own));
        if (each == NULL || PyList_Append(list, each) < 0)
            Py_CLEAR(list);
        Py_XDECREF(each);
    }
    for (int i = 0; list == NULL && i < count; i++)
        close(clients[i].fd); /* the caller will not hear of them */
    return list;
}

static PyObject *splices_sockets(PyObject *self, PyObject *args)
{
    unsigned int number;
    if (!PyArg_ParseTuple(args, "I", &number))
        return NULL;
    const struct splice *splice = splices_find(of(self), number);
    return Py_BuildValue("(ii)", splice == NULL ? -1 : splice->ends[0].fd, splice == NULL ? -1 : splice->ends[1].fd);
}

static PyObject *splices_settle_method(PyObject *self, PyObject *args)
{
    unsigned int number;
    if (!PyArg_ParseTuple(args, "I", &number))
        return NULL;
    return PyLong_FromLong(splices_settle(of(self), number));
}

static PyObject *splices_end_method(PyObject *self, PyObject *args)
{
    unsigned int number;
    int is_reset;
    if (!PyArg_ParseTuple(args, "Ip", &number, &is_reset))
        return NULL;
    splices_end(of(self), number, is_reset != 0);
    Py_RETURN_NONE;
}

static PyObject *splices_lent(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(of(self)->pool.lent);
}

static PyMethodDef methods[] = {
    {"watch", splices_watch_method, METH_VARARGS, NULL},   {"wait", splices_wait_method, METH_VARARGS, NULL},
    {"begin", splices_begin_method, METH_VARARGS, NULL},   {"connect", splices_connect, METH_VARARGS, NULL},
    {"join", splices_join_method, METH_VARARGS, NULL},     {"accept", splices_accept, METH_VARARGS, NULL},
    {"sockets", splices_sockets, METH_VARARGS, NULL},      {"settle", splices_settle_method, METH_VARARGS, NULL},
    {"end", splices_end_method, METH_VARARGS, NULL},       {"lent", splices_lent, METH_NOARGS, NULL},
    {"close", splices_close_method, METH_NOARGS, NULL},    {NULL, NULL, 0, NULL}};

static PyType_Slot slots[] = {
    {Py_tp_new, splices_new}, {Py_tp_dealloc, splices_dealloc}, {Py_tp_methods, methods}, {0, NULL}};

static PyType_Spec spec = {"forwarder._core.Splices", sizeof(struct py_splices), 0, Py_TPFLAGS_DEFAULT, slots};

static const struct {
    const char *name;
    long value;
} constants[] = {{"SPLICE_PIPE_BYTES", PIPE_BYTES},          {"SPLICE_KEPT_PIPES", PIPE_POOL_KEPT},
                 {"SPLICE_COPIED", DIRECTION_COPIED},        {"SPLICE_BULKY", SPLICE_BULKY},
                 {"SPLICE_ANSWERED", SPLICE_NEWS_ANSWERED},  {"SPLICE_JOINED", SPLICE_NEWS_JOINED},
                 {"SPLICE_FAILED", SPLICE_NEWS_FAILED},      {"SPLICE_OVER", SPLICE_NEWS_OVER},
                 {"SPLICE_LINGERS", SPLICE_NEWS_LINGERS},    {"SPLICE_LEAST_WINDOW", WINDOW_LEAST}};

int py_add_splices(PyObject *module)
{
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
            return -1;
    return py_add_type(module, &spec, "Splices");
}
