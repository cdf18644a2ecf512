/* The functions with which a process enters its cell (cell.h). */
#include "python/py_types.h"
#include "system/cell.h"

static PyObject *names_of(unsigned parts)
{
    PyObject *names = PyList_New(0);
    for (unsigned part = 0; names != NULL && part < CELL_PARTS; part++) {
        PyObject *name = parts & (1u << part) ? PyUnicode_FromString(cell_names[part]) : NULL;
        if ((parts & (1u << part)) && (name == NULL || PyList_Append(names, name) < 0))
            Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

static PyObject *core_cell_restrict(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    int abi;
    PyObject *names = names_of(cell_restrict(&abi));
    return names == NULL ? NULL : Py_BuildValue("(Ni)", names, abi);
}

static PyObject *core_cell_filter(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return names_of(cell_filter());
}

static PyObject *core_cell_refused(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    int last;
    uint64_t count = cell_refused(&last);
    return Py_BuildValue("(Ki)", (unsigned long long)count, last);
}

static PyMethodDef functions[] = {
    {"cell_restrict", core_cell_restrict, METH_NOARGS, NULL},
    {"cell_filter", core_cell_filter, METH_NOARGS, NULL},
    {"cell_refused", core_cell_refused, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int py_add_cell(PyObject *module)
{
    PyObject *parts = PyTuple_New(CELL_PARTS);
    for (Py_ssize_t part = 0; parts != NULL && part < CELL_PARTS; part++) {
        PyObject *name = PyUnicode_FromString(cell_names[part]);
        if (name == NULL || PyTuple_SetItem(parts, part, name) < 0)
            Py_CLEAR(parts);
    }
    if (parts == NULL || PyModule_AddObject(module, "CELL_PARTS", parts) < 0) {
        Py_XDECREF(parts);
        return -1;
    }
    return PyModule_AddFunctions(module, functions);
}
