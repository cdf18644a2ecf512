#include "python/py_engine_guard.h"

#include <stdlib.h>

PyObject *py_engine_set_guard(PyObject *self, PyObject *enabled)
{
    struct engine *e = engine_of(self);
    int truth = PyObject_IsTrue(enabled);
    if (e == NULL || truth < 0)
        return NULL;
    e->guard.enabled = truth != 0;
    Py_RETURN_NONE;
}

PyObject *py_engine_limit_questions(PyObject *self, PyObject *gateway)
{
    struct engine *e = engine_of(self);
    char *mac;
    Py_ssize_t size;
    if (e == NULL || PyBytes_AsStringAndSize(gateway, &mac, &size) < 0)
        return NULL;
    if (size != 0 && size != MAC_BYTES)
        return PyErr_Format(PyExc_ValueError, "an address has %u bytes, not %zd", MAC_BYTES, size);
    e->asking.enabled = size != 0;
    memcpy(e->asking.gateway, mac, (size_t)size);
    e->verdict.valid = false;
    Py_RETURN_NONE;
}

PyObject *py_engine_limit_sources(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct engine *e = engine_of(self);
    if (e == NULL)
        return NULL;
    if (e->sources == NULL)
        e->sources = sources_open(e->stats->fdb.secret);
    if (e->sources == NULL)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static bool read_owner(PyObject *item, struct guard_owner *owner)
{
    PyObject *address;
    char *bytes;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(item, "SI", &address, &owner->port) || PyBytes_AsStringAndSize(address, &bytes, &size) < 0)
        return false;
    if (size != ADDRESS_BYTES || owner->port == 0 || owner->port >= MAX_PORTS) {
        PyErr_Format(PyExc_ValueError, "an owner is 16 bytes of address and a port");
        return false;
    }
    memcpy(owner->address, bytes, ADDRESS_BYTES);
    return true;
}

PyObject *py_engine_set_owners(PyObject *self, PyObject *owners)
{
    struct engine *e = engine_of(self);
    Py_ssize_t count = e == NULL ? -1 : PySequence_Size(owners);
    if (count < 0)
        return NULL;
    if (count > (Py_ssize_t)GUARD_MOST_OWNERS)
        return PyErr_Format(PyExc_ValueError, "%zd addresses are more than a guard knows", count);
    struct guard_owner *made = calloc((size_t)count + 1, sizeof *made);
    if (made == NULL)
        return PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PySequence_GetItem(owners, i);
        bool good = item != NULL && read_owner(item, &made[i]);
        Py_XDECREF(item);
        if (!good) {
            free(made);
            return NULL;
        }
    }
    guard_set_owners(&e->guard, made, (uint32_t)count);
    Py_RETURN_NONE;
}

PyObject *py_engine_guarded(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct engine *e = engine_of(self);
    PyObject *result = e == NULL ? NULL : PyList_New(0);
    for (unsigned kind = 0; result != NULL && kind < GUARD_KINDS; kind++) {
        struct guard_note *note = &e->guard.notes[kind];
        if (!note->noted || note->told)
            continue;
        note->told = true;
        PyObject *item = Py_BuildValue("sy#y#", guard_kind_names[kind], (char *)note->source, (Py_ssize_t)MAC_BYTES,
                                       (char *)note->address, (Py_ssize_t)ADDRESS_BYTES);
        if (item == NULL || PyList_Append(result, item) < 0)
            Py_CLEAR(result);
        Py_XDECREF(item);
    }
    if (result != NULL)
        e->guard.news = false;
    return result;
}
