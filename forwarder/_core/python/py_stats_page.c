/* StatsPage: the reading side of a port's stats page. */
#include "python/py_types.h"

#include "shared/stats_page.h"

struct py_stats_page {
    PyObject_HEAD
    struct shm shm;
    struct stats_page *page;
};

static PyObject *stats_page_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    int fd;
    if (!PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    struct py_stats_page *self = (struct py_stats_page *)py_allocate(type);
    if (self == NULL)
        return NULL;
    self->page = stats_page_map(&self->shm, fd, SHM_READ);
    if (self->page != NULL)
        return (PyObject *)self;
    py_os_error();
    Py_DECREF(self);
    return NULL;
}

static void stats_page_dealloc(PyObject *self)
{
    shm_unmap(&((struct py_stats_page *)self)->shm);
    py_free(self);
}

static PyObject *stats_page_counters(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct counters counters;
    stats_page_read(((struct py_stats_page *)self)->page, &counters);
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

static PyObject *stats_page_losses(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct stats_page *page = ((struct py_stats_page *)self)->page;
    PyObject *result = PyList_New(0);
    for (unsigned port = 0; result != NULL && port < MAX_PORTS; port++) {
        struct loss *loss = &page->loss[port];
        unsigned long long attachment = atomic_load_explicit(&loss->attachment, memory_order_relaxed);
        unsigned long long towards = atomic_load_explicit(&loss->towards, memory_order_relaxed);
        unsigned long long from = atomic_load_explicit(&loss->from, memory_order_relaxed);
        if (towards != 0 || from != 0)
            result = append(result, Py_BuildValue("IKKK", port, attachment, towards, from));
    }
    return result;
}

static PyObject *stats_page_snapshot(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct counters counters;
    stats_page_read(((struct py_stats_page *)self)->page, &counters);
    return PyBytes_FromStringAndSize((const char *)&counters, sizeof counters);
}

static double seconds(_Atomic uint64_t *ns)
{
    return (double)atomic_load_explicit(ns, memory_order_relaxed) * 1e-9;
}

static PyObject *stats_page_sent(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct stats_page *page = ((struct py_stats_page *)self)->page;
    PyObject *result = PyList_New(0);
    for (unsigned port = 0; result != NULL && port < MAX_PORTS; port++) {
        unsigned long long bytes = atomic_load_explicit(&page->sent[port].bytes, memory_order_relaxed);
        if (bytes != 0)
            result = append(result, Py_BuildValue("IK", port, bytes));
    }
    return result;
}

static PyObject *stats_page_dealings(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct stats_page *page = ((struct py_stats_page *)self)->page;
    PyObject *result = PyList_New(0);
    for (unsigned port = 0; result != NULL && port < MAX_PORTS; port++) {
        struct sent *sent = &page->sent[port];
        unsigned long long attachment = atomic_load_explicit(&page->loss[port].attachment, memory_order_relaxed);
        unsigned long long frames = atomic_load_explicit(&sent->frames, memory_order_relaxed);
        unsigned long long longest = atomic_load_explicit(&sent->longest, memory_order_relaxed);
        if (frames != 0)
            result = append(result, Py_BuildValue("IKKdKd", port, attachment, frames, seconds(&sent->at_ns), longest,
                                                  seconds(&sent->data_ns)));
    }
    return result;
}

static PyObject *stats_page_questions(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct stats_page *page = ((struct py_stats_page *)self)->page;
    PyObject *result = PyList_New(0);
    for (unsigned i = 0; result != NULL && i < QUESTION_ROWS; i++) {
        struct question_row *row = &page->questions.row[i];
        unsigned long long times = atomic_load_explicit(&row->times, memory_order_relaxed);
        uint64_t address[4];
        for (unsigned half = 0; half < 2; half++) {
            address[half] = atomic_load_explicit(&row->sender[half], memory_order_relaxed);
            address[2 + half] = atomic_load_explicit(&row->target[half], memory_order_relaxed);
        }
        if (times != 0)
            result = append(result, Py_BuildValue("y#y#ddKK", (char *)address, (Py_ssize_t)ADDRESS_BYTES,
                                                  (char *)(address + 2), (Py_ssize_t)ADDRESS_BYTES,
                                                  seconds(&row->first_ns), seconds(&row->last_ns), times,
                                                  (unsigned long long)atomic_load_explicit(
                                                      &row->vlan, memory_order_relaxed)));
    }
    return result;
}

static PyObject *stats_page_macs(PyObject *self, PyObject *args)
{
    unsigned int port, cursor = 0;
    struct fdb_entry entry;
    if (!PyArg_ParseTuple(args, "I", &port))
        return NULL;
    PyObject *result = PyList_New(0);
    while (result != NULL && fdb_walk(&((struct py_stats_page *)self)->page->fdb, &cursor, &entry))
        if (entry.port == port)
            result = append(result, Py_BuildValue("y#IO", (char *)entry.mac, (Py_ssize_t)MAC_BYTES, entry.age_s,
                                                  entry.pinned ? Py_True : Py_False));
    return result;
}

static PyObject *stats_page_port_of(PyObject *self, PyObject *args)
{
    const char *mac;
    Py_ssize_t bytes;
    if (!PyArg_ParseTuple(args, "y#", &mac, &bytes))
        return NULL;
    if (bytes != MAC_BYTES) {
        PyErr_SetString(PyExc_ValueError, "an address has 6 bytes");
        return NULL;
    }
    struct stats_page *page = ((struct py_stats_page *)self)->page;
    uint32_t port = fdb_lookup(&page->fdb, (const uint8_t *)mac);
    return Py_BuildValue("IK", port, (unsigned long long)stats_page_attachment(page, port));
}

static PyObject *stats_page_memory_gone(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct stats_page *page = ((struct py_stats_page *)self)->page;
    return PyBool_FromLong(atomic_load_explicit(&page->memory_gone, memory_order_relaxed) != 0);
}

static PyObject *stats_page_at_boundary(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct stats_page *page = ((struct py_stats_page *)self)->page;
    return PyBool_FromLong((long)atomic_load_explicit(&page->at_boundary, memory_order_relaxed));
}

static PyObject *stats_page_published_at(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct stats_page *page = ((struct py_stats_page *)self)->page;
    return PyFloat_FromDouble((double)atomic_load_explicit(&page->published_ns, memory_order_acquire) * 1e-9);
}

static PyMethodDef methods[] = {
    {"at_boundary", stats_page_at_boundary, METH_NOARGS, NULL},
    {"memory_gone", stats_page_memory_gone, METH_NOARGS, NULL},
    {"counters", stats_page_counters, METH_NOARGS, NULL},
    {"published_at", stats_page_published_at, METH_NOARGS, NULL},
    {"losses", stats_page_losses, METH_NOARGS, NULL},
    {"dealings", stats_page_dealings, METH_NOARGS, NULL},
    {"questions", stats_page_questions, METH_NOARGS, NULL},
    {"sent", stats_page_sent, METH_NOARGS, NULL},
    {"snapshot", stats_page_snapshot, METH_NOARGS, NULL},
    {"macs", stats_page_macs, METH_VARARGS, NULL},
    {"port_of", stats_page_port_of, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, stats_page_new}, {Py_tp_dealloc, stats_page_dealloc}, {Py_tp_methods, methods}, {0, NULL}};

static PyType_Spec spec = {
    .name = "forwarder._core.StatsPage",
    .basicsize = sizeof(struct py_stats_page),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

int py_add_stats_page(PyObject *module)
{
    return py_add_type(module, &spec, "StatsPage");
}
