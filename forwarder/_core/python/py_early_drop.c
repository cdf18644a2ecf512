/* Early drop by itself, for oracle and property tests. */
#include "python/py_types.h"

#include "packet/early_drop.h"

struct py_early_drop {
    PyObject_HEAD
    struct early_drop drop;
};

static PyObject *early_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args, (void)kwargs;
    return py_allocate(type);
}

static PyObject *early_put_method(PyObject *self, PyObject *args)
{
    struct early_drop *drop = &((struct py_early_drop *)self)->drop;
    unsigned int flow, bytes;
    int half_full;
    if (!PyArg_ParseTuple(args, "IIp", &flow, &bytes, &half_full))
        return NULL;
    if (flow > UINT16_MAX || bytes > MAX_RECORD)
        return PyErr_Format(PyExc_ValueError, "a flow has 16 bits, a record MAX_FRAME and 4 bytes at the most");
    if (!early_drop_passes(drop, bytes))
        early_drop_charge(drop, bytes, (uint16_t)flow, half_full != 0);
    return PyBool_FromLong(!early_drop_takes(drop, (uint16_t)flow));
}

static PyMethodDef early_methods[] = {{"put", early_put_method, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};

static PyType_Slot early_slots[] = {
    {Py_tp_new, early_new}, {Py_tp_dealloc, py_free}, {Py_tp_methods, early_methods}, {0, NULL}};

static PyType_Spec spec = {"forwarder._core.EarlyDrop", sizeof(struct py_early_drop), 0, Py_TPFLAGS_DEFAULT, early_slots};

int py_add_early_drop(PyObject *module)
{
    return py_add_type(module, &spec, "EarlyDrop");
}
