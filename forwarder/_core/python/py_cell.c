/* A process enters its cell; what that is, cell.h says. */
#include <string.h>

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

/* Returns CELL_KINDS, and an exception, for what is no kind. */
static enum cell_kind kind_named(const char *name)
{
    for (unsigned kind = 0; kind < CELL_KINDS; kind++)
        if (strcmp(name, cell_kinds[kind]) == 0)
            return (enum cell_kind)kind;
    PyErr_Format(PyExc_ValueError, "there is no cell of kind %s", name);
    return CELL_KINDS;
}

#define READABLE 64

/* The bytes of paths, which the returned object owns. */
static PyObject *encode(PyObject *paths, const char **readable)
{
    Py_ssize_t count = paths == NULL ? 0 : PySequence_Size(paths);
    PyObject *owner = count < 0 ? NULL : PyList_New(0);
    if (owner != NULL && count > READABLE) {
        Py_CLEAR(owner);
        PyErr_Format(PyExc_ValueError, "more than %d paths", READABLE);
    }
    for (Py_ssize_t i = 0; owner != NULL && i < count; i++) {
        PyObject *path = PySequence_GetItem(paths, i), *bytes = path == NULL ? NULL : PyUnicode_EncodeFSDefault(path);
        if (bytes == NULL || PyList_Append(owner, bytes) < 0)
            Py_CLEAR(owner);
        else
            readable[i] = PyBytes_AsString(bytes);
        Py_XDECREF(bytes);
        Py_XDECREF(path);
    }
    return owner;
}

static PyObject *core_cell_restrict(PyObject *module, PyObject *arguments)
{
    (void)module;
    int abi;
    const char *name, *readable[READABLE + 1] = {NULL};
    PyObject *paths = NULL;
    if (!PyArg_ParseTuple(arguments, "s|O", &name, &paths))
        return NULL;
    enum cell_kind kind = kind_named(name);
    PyObject *encoded = kind == CELL_KINDS ? NULL : encode(paths, readable);
    if (encoded == NULL)
        return NULL;
    PyObject *names = names_of(cell_restrict(kind, readable, &abi));
    Py_DECREF(encoded);
    return names == NULL ? NULL : Py_BuildValue("(Ni)", names, abi);
}

static PyObject *core_cell_filter(PyObject *module, PyObject *arguments)
{
    (void)module;
    const char *name;
    if (!PyArg_ParseTuple(arguments, "s", &name))
        return NULL;
    enum cell_kind kind = kind_named(name);
    return kind == CELL_KINDS ? NULL : names_of(cell_filter(kind));
}

static PyObject *core_cell_refused(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    int last;
    uint64_t count = cell_refused(&last);
    return Py_BuildValue("(Ki)", (unsigned long long)count, last);
}

static PyMethodDef functions[] = {
    {"cell_restrict", core_cell_restrict, METH_VARARGS, NULL},
    {"cell_filter", core_cell_filter, METH_VARARGS, NULL},
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
