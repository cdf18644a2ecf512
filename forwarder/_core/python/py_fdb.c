/* The MAC table by itself, for oracle and contract tests. */
#include "python/py_types.h"

#include "shared/fdb.h"

struct py_fdb {
    PyObject_HEAD
    struct fdb *fdb;
};

static PyObject *fdb_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    unsigned long long secret = 0;
    if (!PyArg_ParseTuple(args, "|K", &secret))
        return NULL;
    struct py_fdb *self = py_allocate(type);
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

static PyType_Slot fdb_slots[] = {
    {Py_tp_new, fdb_new}, {Py_tp_dealloc, fdb_dealloc}, {Py_tp_methods, fdb_methods}, {0, NULL}};

static PyType_Spec spec = {"forwarder._core.Fdb", sizeof(struct py_fdb), 0, Py_TPFLAGS_DEFAULT, fdb_slots};

int py_add_fdb(PyObject *module)
{
    return py_add_type(module, &spec, "Fdb");
}
