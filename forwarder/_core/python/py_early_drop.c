/* The choice of what is dropped early by itself, for oracle and property tests. */
#include "python/py_types.h"

#include "packet/early_drop.h"

struct py_early {
    PyObject_HEAD
    struct early early;
};

static PyObject *early_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args, (void)kwargs;
    return py_allocate(type);
}

static PyObject *early_put_method(PyObject *self, PyObject *args)
{
    struct early *early = &((struct py_early *)self)->early;
    unsigned int flow, bytes;
    int deep;
    if (!PyArg_ParseTuple(args, "IIp", &flow, &bytes, &deep))
        return NULL;
    if (flow > UINT16_MAX || bytes > MAX_RECORD)
        return PyErr_Format(PyExc_ValueError, "a flow has 16 bits, a record MAX_FRAME and 4 bytes at the most");
    if (!early_passes(early, bytes))
        early_charge(early, bytes, (uint16_t)flow, deep != 0);
    return PyBool_FromLong(!early_drops(early, (uint16_t)flow));
}

static PyMethodDef early_methods[] = {{"put", early_put_method, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};

static PyType_Slot early_slots[] = {
    {Py_tp_new, early_new}, {Py_tp_dealloc, py_free}, {Py_tp_methods, early_methods}, {0, NULL}};

static PyType_Spec spec = {"forwarder._core.Early", sizeof(struct py_early), 0, Py_TPFLAGS_DEFAULT, early_slots};

int py_add_early(PyObject *module)
{
    return py_add_type(module, &spec, "Early");
}
