/* The connections of the relay, joined in the kernel (relay/splices.h). */
#include "python/py_types.h"

#include "relay/splices.h"

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

static PyObject *splices_fileno(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(of(self)->epoll);
}

static PyObject *splices_join_method(PyObject *self, PyObject *args)
{
    int fds[2], are_unix[2];
    if (!PyArg_ParseTuple(args, "iipp", &fds[0], &fds[1], &are_unix[0], &are_unix[1]))
        return NULL;
    int64_t number = splices_join(of(self), fds, (bool[2]){are_unix[0] != 0, are_unix[1] != 0});
    return number < 0 ? py_os_error() : PyLong_FromLongLong(number);
}

static PyObject *splices_turn_method(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct splices *splices = of(self);
    if (splices_turn(splices) < 0)
        return PyErr_NoMemory();
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < splices->report_count; i++) {
        const struct splice_report *each = &splices->reports[i];
        PyObject *news = Py_BuildValue("(IOi)", (unsigned int)each->number,
                                       each->news == SPLICE_OVER ? Py_True : Py_False, each->error);
        if (news == NULL || PyList_Append(list, news) < 0)
            Py_CLEAR(list);
        Py_XDECREF(news);
    }
    return list;
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
    if (!PyArg_ParseTuple(args, "I", &number))
        return NULL;
    splices_end(of(self), number);
    Py_RETURN_NONE;
}

static PyObject *splices_busy(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(splices_are_busy(of(self)));
}

static PyObject *splices_lent(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(of(self)->lent);
}

static PyMethodDef methods[] = {
    {"fileno", splices_fileno, METH_NOARGS, NULL},    {"join", splices_join_method, METH_VARARGS, NULL},
    {"turn", splices_turn_method, METH_NOARGS, NULL}, {"settle", splices_settle_method, METH_VARARGS, NULL},
    {"end", splices_end_method, METH_VARARGS, NULL},  {"busy", splices_busy, METH_NOARGS, NULL},
    {"lent", splices_lent, METH_NOARGS, NULL},        {"close", splices_close_method, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL}};

static PyType_Slot slots[] = {
    {Py_tp_new, splices_new}, {Py_tp_dealloc, splices_dealloc}, {Py_tp_methods, methods}, {0, NULL}};

static PyType_Spec spec = {"forwarder._core.Splices", sizeof(struct py_splices), 0, Py_TPFLAGS_DEFAULT, slots};

int py_add_splices(PyObject *module)
{
    return py_add_type(module, &spec, "Splices") < 0
                   || PyModule_AddIntConstant(module, "SPLICE_PIPE_BYTES", SPLICE_PIPE_BYTES) < 0
                   || PyModule_AddIntConstant(module, "SPLICE_KEPT_PIPES", SPLICE_KEPT_PIPES) < 0
               ? -1
               : 0;
}
