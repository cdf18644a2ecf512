/* Block: the reading side of a port's block. */
#include "python/py_types.h"

#include "shared/stats_page.h"

struct py_block {
    PyObject_HEAD
    struct shm shm;
    struct block *block;
};

static PyObject *block_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    int fd;
    if (!PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    struct py_block *self = (struct py_block *)py_allocate(type);
    if (self == NULL)
        return NULL;
    self->block = block_map(&self->shm, fd, SHM_READ);
    if (self->block != NULL)
        return (PyObject *)self;
    py_os_error();
    Py_DECREF(self);
    return NULL;
}

static void block_dealloc(PyObject *self)
{
    shm_unmap(&((struct py_block *)self)->shm);
    py_free(self);
}

static PyObject *block_counters(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct counters counters;
    block_read(((struct py_block *)self)->block, &counters);
    PyObject *result = PyDict_New();
    for (size_t i = 0; result != NULL && i < COUNTER_COUNT; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(((uint64_t *)&counters)[i]);
        if (value == NULL || PyDict_SetItemString(result, counter_names[i], value) < 0)
            Py_CLEAR(result);
        Py_XDECREF(value);
    }
    return result;
}

/* Append a new reference; on failure the list is released and NULL returned. */
static PyObject *append(PyObject *list, PyObject *item)
{
    if (item == NULL || PyList_Append(list, item) < 0)
        Py_CLEAR(list);
    Py_XDECREF(item);
    return list;
}

static PyObject *block_losses(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct block *block = ((struct py_block *)self)->block;
    PyObject *result = PyList_New(0);
    for (unsigned port = 0; result != NULL && port < MAX_PORTS; port++) {
        struct loss *loss = &block->loss[port];
        unsigned long long born = atomic_load_explicit(&loss->born, memory_order_relaxed);
        unsigned long long towards = atomic_load_explicit(&loss->towards, memory_order_relaxed);
        unsigned long long from = atomic_load_explicit(&loss->from, memory_order_relaxed);
        if (towards != 0 || from != 0)
            result = append(result, Py_BuildValue("IKKK", port, born, towards, from));
    }
    return result;
}

static PyObject *block_macs(PyObject *self, PyObject *args)
{
    unsigned int port, cursor = 0;
    struct fdb_entry entry;
    if (!PyArg_ParseTuple(args, "I", &port))
        return NULL;
    PyObject *result = PyList_New(0);
    while (result != NULL && fdb_walk(&((struct py_block *)self)->block->fdb, &cursor, &entry))
        if (entry.port == port)
            result = append(result, Py_BuildValue("y#IO", (char *)entry.mac, (Py_ssize_t)MAC_BYTES, entry.age_s,
                                                  entry.pinned ? Py_True : Py_False));
    return result;
}

static PyObject *block_port_of(PyObject *self, PyObject *args)
{
    const char *mac;
    Py_ssize_t bytes;
    if (!PyArg_ParseTuple(args, "y#", &mac, &bytes))
        return NULL;
    if (bytes != MAC_BYTES) {
        PyErr_SetString(PyExc_ValueError, "an address has 6 bytes");
        return NULL;
    }
    return PyLong_FromUnsignedLong(fdb_lookup(&((struct py_block *)self)->block->fdb, (const uint8_t *)mac));
}

static PyObject *block_at_boundary(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct block *block = ((struct py_block *)self)->block;
    return PyBool_FromLong((long)atomic_load_explicit(&block->at_boundary, memory_order_relaxed));
}

static PyObject *block_published_at(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct block *block = ((struct py_block *)self)->block;
    return PyFloat_FromDouble((double)atomic_load_explicit(&block->published_ns, memory_order_relaxed) * 1e-9);
}

static PyMethodDef methods[] = {
    {"at_boundary", block_at_boundary, METH_NOARGS, NULL},
    {"counters", block_counters, METH_NOARGS, NULL},
    {"published_at", block_published_at, METH_NOARGS, NULL},
    {"losses", block_losses, METH_NOARGS, NULL},
    {"macs", block_macs, METH_VARARGS, NULL},
    {"port_of", block_port_of, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, block_new}, {Py_tp_dealloc, block_dealloc}, {Py_tp_methods, methods}, {0, NULL}};

static PyType_Spec spec = {
    .name = "forwarder._core.Block", .basicsize = sizeof(struct py_block), .flags = Py_TPFLAGS_DEFAULT, .slots = slots};

int py_add_block(PyObject *module)
{
    return py_add_type(module, &spec, "Block");
}
